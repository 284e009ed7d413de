from typing import Annotated, Any

from pydantic import Field

from bench.config.keys import PassKey, Work, key


class _Rested(PassKey):
    kind = Annotated[float, Field(gt=0, le=60)] | None
    declared = key(None, "seconds to rest before one more call")

    def seconds(self, value: Any, work: Work) -> float:
        return float(value + work.call(None, None, None))


KEY = _Rested()

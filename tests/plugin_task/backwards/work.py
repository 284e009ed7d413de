from collections.abc import Mapping, Sequence
from typing import Any

from bench.tasks.text_to_image.work import TextToImage


class Backwards(TextToImage):
    name = "backwards"

    def inputs(self, workload: Mapping[str, Any]) -> Any:
        return super().inputs({**workload, "prompt": workload["prompt"][::-1]})

    def saved(self, images: Sequence[Any]) -> None:
        self.run.report.set(backwards={"prompt": self.workload["prompt"][::-1]})


TASK = Backwards

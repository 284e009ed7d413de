"""``bench schema``: the JSON Schema of configurations."""

from __future__ import annotations

import json


def schema() -> None:
    """It knows the backends that are installed here. With a YAML language server, the first line of
    a configuration names it, relative to the configuration.

    Examples:
      bench schema > configs/bench.schema.json
      # yaml-language-server: $schema=bench.schema.json
    """
    from bench.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))

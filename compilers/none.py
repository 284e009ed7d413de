"""``none``: the pipeline as diffusers made it, the baseline of every comparison."""

from __future__ import annotations

from typing import Any

from compilers.base import Evidence, NoOptions, Scope, Traits, Verdict


class NoBackend:
    """Change nothing."""

    name = "none"
    options = NoOptions
    environment = "current"
    lossy = False
    traits = Traits(compiles="nothing")

    def probe(self, device: str) -> Verdict:
        """Support every device."""
        return Verdict(True)

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        """Leave ``pipeline`` as it is."""
        return Scope()

    def evidence(self) -> Evidence:
        """Claim nothing."""
        return Evidence(runtime="none")

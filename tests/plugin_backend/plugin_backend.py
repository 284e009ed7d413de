"""Third-party backends: one that works, and one for each way of not working.

Those built on torch.compile use its ``eager`` compiler, which makes graphs without generating code,
so that a test costs seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from compilers.base import Evidence, NoOptions, Scope, Verdict, lacking


def limits() -> tuple[str, ...]:
    """Name the settings of this torch that end recompiling."""
    from torch._dynamo import config

    new = ("recompile_limit", "accumulated_recompile_limit")
    old = ("cache_size_limit", "accumulated_cache_size_limit")
    return tuple(
        name for name in (new if hasattr(config, new[0]) else old) if hasattr(config, name)
    )


@dataclass(frozen=True)
class GoodOptions:
    """Options of ``plugin-good``."""

    scope: tuple[str, ...] = ("unet",)
    fullgraph: bool = False


class _Plugin:
    options: type = NoOptions
    environment = "current"
    lossy = False
    runtime = "dynamo"

    def probe(self, device: str) -> Verdict:
        return Verdict(True)

    def prepare(self, pipeline: Any, options: Any) -> Scope:
        raise NotImplementedError

    def evidence(self) -> Evidence:
        return Evidence(runtime=self.runtime)


class Good(_Plugin):
    """Compiles what it says."""

    name = "plugin-good"
    options = GoodOptions

    def prepare(self, pipeline: Any, options: GoodOptions) -> Scope:
        import torch

        for name in options.scope:
            owner, _, method = name.partition(".")
            if method:
                part = getattr(pipeline, owner)
                setattr(part, method, torch.compile(getattr(part, method), backend="eager"))
            else:
                compiled = torch.compile(
                    getattr(pipeline, name), backend="eager", fullgraph=options.fullgraph
                )
                setattr(pipeline, name, compiled)
        return Scope(tuple(options.scope))


class Modules(_Plugin):
    """Puts a function of its own in place of a module's, without torch.compile."""

    name = "plugin-modules"
    runtime = "modules"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        forward = pipeline.unet.forward

        def checked(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            assert output[0] is not None
            return output

        pipeline.unet.forward = checked
        return Scope(("unet",))


class Raises(_Plugin):
    """Fails while it prepares."""

    name = "plugin-raises"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        raise ValueError("the widget is upside down\nand a second line")


class Exits(_Plugin):
    """Ends the process as a licence check would."""

    name = "plugin-exits"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        raise SystemExit(1)


class Silent(_Plugin):
    """Does nothing and says that it did."""

    name = "plugin-silent"
    runtime = "modules"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        return Scope(("unet",))


class Liar(_Plugin):
    """Wraps the denoiser in something that runs it eager, and claims graphs."""

    name = "plugin-liar"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        forward = pipeline.unet.forward
        pipeline.unet.forward = lambda *args, **kwargs: forward(*args, **kwargs)
        return Scope(("unet",))

    def evidence(self) -> Evidence:
        return Evidence(runtime="dynamo", details={"graphs": 7, "active": True})


class WrongVae(_Plugin):
    """Wraps the VAE, of which pipelines call decode, so that nothing is compiled there."""

    name = "plugin-wrong-vae"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        import torch

        pipeline.text_encoder = torch.compile(pipeline.text_encoder, backend="eager")
        pipeline.vae = torch.compile(pipeline.vae, backend="eager")
        return Scope(("text_encoder", "vae.decode"))


class Restless(_Plugin):
    """Compiles anew at every call, since its graph depends on a number that changes."""

    name = "plugin-restless"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        import torch

        forward = pipeline.unet.forward
        calls = itertools.count()
        compiled = torch.compile(lambda x, n: x * 1.0 + 0.0 * n, backend="eager", dynamic=False)

        def restless(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            return (compiled(output[0], next(calls)), *output[1:])

        for name in limits():
            setattr(torch._dynamo.config, name, 10**6)
        pipeline.unet.forward = restless
        return Scope(("unet",))


class Breaks(_Plugin):
    """Compiles around a place that cannot be traced."""

    name = "plugin-breaks"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        import torch

        forward = pipeline.unet.forward

        def interrupted(sample: Any) -> Any:
            doubled = sample * 2
            torch._dynamo.graph_break()
            return doubled / 2

        compiled = torch.compile(interrupted, backend="eager")

        def broken(sample: Any, *args: Any, **kwargs: Any) -> Any:
            return forward(compiled(sample), *args, **kwargs)

        pipeline.unet.forward = broken
        return Scope(("unet",))


class Suppresses(_Plugin):
    """Compiles with a compiler that fails, and tells torch to run eager instead."""

    name = "plugin-suppresses"

    def prepare(self, pipeline: Any, options: NoOptions) -> Scope:
        import torch
        import torch._dynamo

        def compiler(graph: Any, inputs: Any) -> Any:
            raise RuntimeError("no code for this graph")

        torch._dynamo.config.suppress_errors = True
        forward = pipeline.unet.forward
        good = torch.compile(lambda x: x * 1.0, backend="eager")
        bad = torch.compile(lambda x: x + 0.0, backend=compiler)

        def half(sample: Any, *args: Any, **kwargs: Any) -> Any:
            return forward(bad(good(sample)), *args, **kwargs)

        pipeline.unet.forward = half
        return Scope(("unet",))


class Refuses(_Plugin):
    """Supports nothing."""

    name = "plugin-refuses"

    def probe(self, device: str) -> Verdict:
        return Verdict(False, f"it needs a quantum device, and this is {device}")


class Lacks(_Plugin):
    """Misses a package."""

    name = "plugin-lacks"

    def probe(self, device: str) -> Verdict:
        return lacking("the package widget is not installed")


class NotABackend:
    """Has none of a backend's attributes."""


class Misnamed(Silent):
    """Calls itself otherwise than its entry point."""

    name = "something-else"

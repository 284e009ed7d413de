"""``deepcache``: most steps reuse the deep features of an earlier one, by the package DeepCache."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any

from compilers import packages
from compilers.base import Evidence, Scope, UnsupportedPipelineError, Verdict, lacking

LAYERS_A_BLOCK = 3
"""DeepCache numbers its branches as layer + 3 x block, whatever the model has."""


@dataclass(frozen=True)
class DeepCacheOptions:
    """Where the UNet is cut and how often it runs whole.

    Attributes:
        cache_interval: every how many steps the whole UNet runs; the others reuse its features.
        cache_layer_id: layer of the block at which the UNet is cut: 0, 1 or 2.
        cache_block_id: block at which it is cut; 0 is the outermost and reuses most.
    """

    cache_interval: int = 3
    cache_layer_id: int = 0
    cache_block_id: int = 0

    def __post_init__(self) -> None:
        """Refuse what would cache nothing or does not exist, with a ValueError."""
        if self.cache_interval < 2:
            raise ValueError(
                f"cache_interval: {self.cache_interval} caches nothing; it must be 2 or more"
            )
        if not 0 <= self.cache_layer_id < LAYERS_A_BLOCK:
            raise ValueError(f"cache_layer_id: {self.cache_layer_id} is not 0, 1 or 2")
        if self.cache_block_id < 0:
            raise ValueError(f"cache_block_id: {self.cache_block_id} is negative")

    @property
    def branch(self) -> int:
        return self.cache_layer_id + LAYERS_A_BLOCK * self.cache_block_id


class DeepCache:
    """Let the package replace the forward functions of the UNet and its blocks."""

    name = "deepcache"
    options = DeepCacheOptions
    environment = "current"
    lossy = True

    def __init__(self) -> None:
        self._options = DeepCacheOptions()
        self._steps: list[bool] = []

    def probe(self, device: str) -> Verdict:
        """Return whether the package is there; it is plain Python and runs wherever torch does."""
        if importlib.util.find_spec("DeepCache") is None:
            return lacking("DeepCache is not installed (pip install DeepCache)")
        try:
            from DeepCache import DeepCacheSDHelper
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises
            return lacking(f"DeepCache does not import: {type(error).__name__}: {error}")
        if not callable(getattr(DeepCacheSDHelper, "set_params", None)):
            return lacking("this DeepCache has no DeepCacheSDHelper.set_params")
        return Verdict(True)

    def prepare(self, pipeline: Any, options: DeepCacheOptions) -> Scope:
        """Cut the UNet, and count which steps run whole."""
        unet = getattr(pipeline, "unet", None)
        if unet is None or getattr(unet, "mid_block", None) is None:
            raise UnsupportedPipelineError(
                f"{type(pipeline).__name__} has no UNet with a middle block to skip"
            )
        blocks = len(unet.down_blocks)
        if options.cache_block_id >= blocks:
            raise UnsupportedPipelineError(
                f"cache_block_id {options.cache_block_id} is beyond the {blocks} blocks of this "
                f"UNet, which are 0 to {blocks - 1}"
            )
        if getattr(pipeline.scheduler, "order", 1) > 1:
            raise UnsupportedPipelineError(
                f"DeepCache counts steps by their timestep, and "
                f"{type(pipeline.scheduler).__name__} evaluates most of them twice"
            )
        from DeepCache import DeepCacheSDHelper

        helper = DeepCacheSDHelper(pipe=pipeline)
        helper.set_params(cache_interval=options.cache_interval, cache_branch_id=options.branch)
        helper.enable()
        self._options = options
        self._count_steps(pipeline, helper)
        return Scope(("unet",))

    def _count_steps(self, pipeline: Any, helper: Any) -> None:
        """Note for each step of a generation whether it ran whole, and begin each one anew.

        The package keeps its features and its first step from one generation to the next, which
        goes wrong as soon as two of them begin at different timesteps. Each generation sets new
        timesteps, so that a new object there marks its beginning.
        """
        whole = helper.function_dict["mid", "mid_block", 0, 0]
        skipping = pipeline.unet.forward
        timesteps: list[Any] = [None]

        @functools.wraps(whole)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._steps[-1] = True
            return whole(*args, **kwargs)

        @functools.wraps(skipping)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            if pipeline.scheduler.timesteps is not timesteps[0]:
                timesteps[0] = pipeline.scheduler.timesteps
                helper.start_timestep = None
                helper.cached_output.clear()
                self._steps.clear()
            self._steps.append(False)
            return skipping(*args, **kwargs)

        helper.function_dict["mid", "mid_block", 0, 0] = counted
        pipeline.unet.forward = stepped

    def step_kinds(self) -> list[str]:
        """Return "full" or "shallow" for each denoiser call of the last generation."""
        return ["full" if whole else "shallow" for whole in self._steps]

    def evidence(self) -> Evidence:
        """Show how many denoiser calls of the last generation ran the whole UNet."""
        options = self._options
        shallow = len(self._steps) - sum(self._steps)
        return Evidence(
            fallback=None
            if shallow
            else f"all {len(self._steps)} steps ran the whole UNet, so that nothing was reused",
            runtime="modules",
            details={
                "versions": packages.versions("DeepCache"),
                "cache_interval": options.cache_interval,
                "cache_branch_id": options.branch,
                "full_steps": sum(self._steps),
                "shallow_steps": shallow,
            },
        )

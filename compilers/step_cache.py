"""Deep features of a UNet, computed at some steps and reused at those between.

Neighbouring steps change the deep, low-resolution features little (DeepCache, arXiv:2312.00858). At
a step that reuses them, only the outermost down and up block run. The image changes.
"""

from __future__ import annotations

import functools
from typing import Any

from compilers.base import UnsupportedPipelineError


class DeepFeatures:
    """Wraps the inner blocks of a UNet in place.

    Steps are counted from each ``scheduler.set_timesteps``, so every image begins with a step
    that computes everything.

    Attributes:
        interval: every interval-th call of the UNet computes its deep features.
        reusing: whether the UNet's current call reuses them.
        reused: the same of each call since the last ``scheduler.set_timesteps``.
    """

    def __init__(self, unet: Any, scheduler: Any, interval: int) -> None:
        down = list(getattr(unet, "down_blocks", ()))
        up = list(getattr(unet, "up_blocks", ()))
        if min(len(down), len(up)) < 2 or getattr(unet, "mid_block", None) is None:
            raise UnsupportedPipelineError(
                f"step caching keeps the deep blocks of a UNet, and {type(unet).__name__} has none"
            )
        self.interval = interval
        self.reusing = False
        self.reused: list[bool] = []
        self._kind: Any = None
        self._features: dict[Any, Any] = {}
        self._wrap_schedule(scheduler)
        for block in down[1:]:
            self._skip_down(block)
        self._skip(unet.mid_block)
        for block in up[:-2]:
            self._skip(block)
        self._keep(up[-2])

    def begin_call(self, sample: Any) -> None:
        """Note that the UNet is called with ``sample`` next; decides whether this call reuses."""
        self._kind = (tuple(sample.shape), sample.dtype)
        self.reusing = len(self.reused) % self.interval != 0
        self.reused.append(self.reusing)

    def _wrap_schedule(self, scheduler: Any) -> None:
        set_timesteps = scheduler.set_timesteps

        # Pipelines ask for its signature: wraps keeps it.
        @functools.wraps(set_timesteps)
        def restarted(*args: Any, **kwargs: Any) -> Any:
            self.reused = []
            return set_timesteps(*args, **kwargs)

        scheduler.set_timesteps = restarted

    def _skip_down(self, block: Any) -> None:
        """Residuals of a skipped block are taken by skipped blocks only: their number is enough."""
        forward = block.forward
        made = len(block.resnets) + (1 if block.downsamplers is not None else 0)

        def skipped(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if self.reusing:
                return hidden_states, (hidden_states,) * made
            return forward(hidden_states, *args, **kwargs)

        block.forward = skipped

    def _skip(self, block: Any) -> None:
        forward = block.forward

        def skipped(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            return hidden_states if self.reusing else forward(hidden_states, *args, **kwargs)

        block.forward = skipped

    def _keep(self, block: Any) -> None:
        forward = block.forward

        def kept(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if self.reusing:
                return self._features[self._kind]
            result = forward(hidden_states, *args, **kwargs)
            # One buffer for good: a CUDA graph that reuses reads from the address that it captured.
            if self._kind not in self._features:
                self._features[self._kind] = result.clone()
            self._features[self._kind].copy_(result)
            return result

        block.forward = kept

"""Telemetry: the parent samples a worker and its GPU from outside, in a pass of its own."""

from bench.telemetry.sampler import Sampler
from bench.telemetry.sources import sampler_of

__all__ = ["Sampler", "sampler_of"]

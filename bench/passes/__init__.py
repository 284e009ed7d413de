"""What a cell can measure besides its own calls: a folder a pass. docs/adding-a-pass.md."""

from bench.plugins import Registry

PASSES = Registry("bench.passes", ("telemetry", "repeat", "profile", "sweep"), "bench.passes")
"""In the order in which a worker makes them."""

"""What a workload does: a folder a task."""

from bench.plugins import Registry

TASKS = Registry(
    "bench.tasks", ("text-to-image", "image-to-image", "edit", "chain", "folder"), "bench.tasks"
)

"""What a profile leaves in a record."""

from __future__ import annotations

from bench.records.types import Count, Part, Seconds, Text


class Work(Part, frozen=True):
    """Operations of one scope in one pipeline call; ``bytes`` of each operator alone."""

    calls: Count = 0
    flops: Count = 0
    bytes: Count = 0
    weight_bytes: Count = 0


class Ceilings(Part, frozen=True):
    """What this process could do at most."""

    matmul_flops_per_s: Seconds
    copy_bytes_per_s: Seconds
    matmul_side: Count | None = None
    copied_bytes: Count | None = None
    dtype: Text | None = None


class DeviceBusy(Part, frozen=True):
    """One traced call, in seconds."""

    busy_s: float | None = None
    kernels: Count | None = None
    e2e_s: float | None = None
    loop_clock_s: float | None = None
    loop_kernel_s: float | None = None
    loop_busy_s: float | None = None


class Fields(Part, frozen=True):
    work: dict[Text, Work] | None = None
    ceilings: Ceilings | None = None
    device_busy: DeviceBusy | None = None

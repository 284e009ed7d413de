"""What can be read of a worker from outside: NVML for its GPU, psutil for its processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import psutil

from bench import nvml
from bench.telemetry.sampler import Sampler

Row = dict[str, "float | int | None"]

HOST = ("cpu_pct", "rss_bytes")
GPU = (
    "gpu_pct",
    "gpu_memory_pct",
    "device_used_bytes",
    "process_used_bytes",
    "power_w",
    "energy_counter_j",
    "sm_clock_mhz",
    "temperature_c",
    "throttle_bits",
    "foreign_processes",
)
COLUMNS = (*HOST, *GPU)
"""Everything that is sampled; units are in the names, what each means is in docs/telemetry.md."""

SAMPLING_ENDS = (1, 9, 15, 999)
"""NVML errors after which no query succeeds: uninitialised, no driver, GPU lost, unknown."""

NOT_SUPPORTED = (3, 13)
"""NVML errors that will not change: not supported, and no such function in this driver."""

NO_PERMISSION = 4


class SourceEndedError(Exception):
    """Nothing more can be read; ``str()`` is the reason, without a full stop."""


class Source(Protocol):
    """What a sampler reads.

    Attributes:
        reasons: column -> why it has no values, or not all.
        foreign: names of other processes on the GPU.
        name: where the values come from.
        cpus: logical CPUs of the machine, which 100 per cent of ``cpu_pct`` are.
    """

    reasons: dict[str, str]
    foreign: set[str]
    name: str
    cpus: int

    def read(self) -> Row:
        """Return one sample; what could not be read is absent or None.

        Raises:
            SourceEndedError: there will be no more.
        """
        ...


class ProcessTree:
    """A worker and what it has started: CPU time and resident memory.

    CPU per cent is CPU time over wall time and over the machine's logical CPUs since the sample
    before, so 100 is every CPU busy; the first sample has none. Systems count CPU time in ticks of
    often 10 ms, so a short period makes it coarse.
    """

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.reasons: dict[str, str] = {}
        self.foreign: set[str] = set()
        self.name = "psutil"
        self.cpus = psutil.cpu_count() or 1
        self._pid = pid
        self._clock = clock
        self._before: dict[int, float] = {}
        self._when: float | None = None

    def pids(self) -> set[int]:
        return {process.pid for process in self._processes()}

    def read(self) -> Row:
        now = self._clock()
        times: dict[int, float] = {}
        rss = 0
        for process in self._processes():
            try:
                with process.oneshot():
                    used = process.cpu_times()
                    times[process.pid] = used.user + used.system
                    rss += process.memory_info().rss
            except psutil.Error:
                continue
        if not times:
            raise SourceEndedError("the worker is gone")
        share = None
        if self._when is not None and now > self._when:
            share = cpu_pct(self._before, times, now - self._when, self.cpus)
        self._before, self._when = times, now
        return {"cpu_pct": share, "rss_bytes": rss}

    def _processes(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []


def cpu_pct(
    before: Mapping[int, float], after: Mapping[int, float], elapsed_s: float, cpus: int
) -> float:
    """Return per cent of ``cpus`` that processes were busy between two readings of their CPU time.

    A process that is new counts from 0; one that is gone does not count.

    Args:
        before: process id -> CPU seconds so far.
        after: the same, ``elapsed_s`` > 0 later.
    """
    busy = sum(max(0.0, seconds - before.get(pid, 0.0)) for pid, seconds in after.items())
    return 100.0 * busy / elapsed_s / cpus


class Gpu:
    """One GPU through NVML, beside the worker's processes.

    Args:
        library: opened bindings.
        uuid: of the device.
        tree: the worker's processes, which are not strangers on it.
    """

    def __init__(self, library: Any, uuid: str, tree: ProcessTree) -> None:
        self.reasons = tree.reasons
        self.foreign: set[str] = set()
        self.name = "nvml and psutil"
        self.cpus = tree.cpus
        self._nvml = library
        self._tree = tree
        self._handle = nvml.handle_of(library, uuid)
        self._queries: dict[str, Callable[[], Row]] = {
            "gpu_pct": self._utilisation,
            "device_used_bytes": self._memory,
            "process_used_bytes": self._processes,
            "power_w": lambda: {"power_w": self._ask("nvmlDeviceGetPowerUsage") / 1000},
            "energy_counter_j": lambda: {
                "energy_counter_j": self._ask("nvmlDeviceGetTotalEnergyConsumption") / 1000
            },
            "sm_clock_mhz": lambda: {
                "sm_clock_mhz": self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM)
            },
            "temperature_c": lambda: {
                "temperature_c": self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU)
            },
            "throttle_bits": self._throttle,
        }

    def read(self) -> Row:
        row = self._tree.read()
        for name, query in list(self._queries.items()):
            try:
                row.update(query())
            except AttributeError:
                self._give_up(name, "these bindings have no such query")
            except self._nvml.NVMLError as error:
                self._failed(name, error)
        return row

    def _failed(self, name: str, error: Exception) -> None:
        code = getattr(error, "value", None)
        if code in SAMPLING_ENDS:
            raise SourceEndedError(f"NVML: {error}") from None
        if code in NOT_SUPPORTED or code == NO_PERMISSION:
            self._give_up(name, f"NVML: {error}")
        else:
            for column in _OF[name]:
                self.reasons[column] = f"some samples are missing; NVML: {error}"

    def _give_up(self, name: str, reason: str) -> None:
        del self._queries[name]
        for column in _OF[name]:
            self.reasons[column] = reason

    def _ask(self, function: str, *arguments: Any) -> Any:
        return getattr(self._nvml, function)(self._handle, *arguments)

    def _utilisation(self) -> Row:
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        return {"gpu_pct": int(rates.gpu), "gpu_memory_pct": int(rates.memory)}

    def _memory(self) -> Row:
        return {"device_used_bytes": int(self._ask("nvmlDeviceGetMemoryInfo").used)}

    def _throttle(self) -> Row:
        # The name before driver 535; newer bindings have both, and drivers answer to both.
        name = "nvmlDeviceGetCurrentClocksThrottleReasons"
        if not hasattr(self._nvml, name):
            name = "nvmlDeviceGetCurrentClocksEventReasons"
        return {"throttle_bits": int(self._ask(name))}

    def _processes(self) -> Row:
        listed = {each.pid: each for each in self._ask("nvmlDeviceGetComputeRunningProcesses")}
        own = self._tree.pids()
        mine = [listed[pid] for pid in own if pid in listed]
        strangers = [pid for pid in listed if pid not in own]
        row: Row = {"foreign_processes": len(strangers)}
        if mine:
            used = [each.usedGpuMemory for each in mine]
            if None in used:
                self.reasons["process_used_bytes"] = "the driver does not tell it by process"
            else:
                row["process_used_bytes"] = sum(map(int, used))
        else:
            # In a container the driver may list ids of the host, or nothing.
            self.reasons["process_used_bytes"] = (
                "the driver lists no process of the worker, as it does where a container hides it"
            )
            # One of those may be the worker under another id.
            row["foreign_processes"] = max(0, len(strangers) - 1)
            self.reasons["foreign_processes"] = (
                "the worker is not among the listed processes; one of them was taken for it"
            )
        self.foreign.update(self._names(strangers if mine else strangers[1:]))
        return row

    def _names(self, pids: Sequence[int]) -> Iterator[str]:
        for pid in pids:
            try:
                yield psutil.Process(pid).name()
            except psutil.Error:
                yield "a process that this system does not show"


_OF: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in GPU},
    "gpu_pct": ("gpu_pct", "gpu_memory_pct"),
    "process_used_bytes": ("process_used_bytes", "foreign_processes"),
}
"""Columns by the query that fills them."""


def sampler_of(
    device: str,
    pid: int,
    period_s: float,
    uuids: Callable[[], Sequence[str]],
    library: Any = None,
) -> Sampler:
    """Return a sampler, not started, of the worker ``pid`` on ``device``.

    Args:
        uuids: of the GPUs that workers see, in the order of their ``cuda:N``.
        library: the NVML bindings; None finds the installed ones.
    """
    return Sampler(lambda: opened(device, pid, uuids, library), period_s, COLUMNS)


@contextmanager
def opened(
    device: str, pid: int, uuids: Callable[[], Sequence[str]], library: Any = None
) -> Iterator[Source]:
    """Open what can be read of a worker and its device: NVML if it is there, psutil in any case."""
    tree = ProcessTree(pid)
    with ExitStack() as held:
        try:
            source: Source = _gpu(device, tree, uuids, library, held)
        except nvml.NvmlUnavailable as error:
            tree.reasons |= dict.fromkeys(GPU, str(error))
            source = tree
        yield source


def _gpu(
    device: str,
    tree: ProcessTree,
    uuids: Callable[[], Sequence[str]],
    library: Any,
    held: ExitStack,
) -> Gpu:
    kind, _, index = device.partition(":")
    if kind != "cuda":
        raise nvml.NvmlUnavailable(f"the worker ran on {device}, which NVML does not know")
    known = uuids()
    if int(index or 0) >= len(known):
        raise nvml.NvmlUnavailable(f"no UUID of the device {device} is known")
    bindings = held.enter_context(nvml.opened(library))
    try:
        return Gpu(bindings, known[int(index or 0)], tree)
    except bindings.NVMLError as error:
        raise nvml.NvmlUnavailable(f"NVML does not show the device {device}: {error}") from None

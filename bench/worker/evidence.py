"""Proof that a backend is active, without taking its word.

Two witnesses: the structure of the pipeline before and after ``prepare``, and torch's own counters,
read where a scope is entered and left during warm-up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contract import SCOPES, BackendChoice
from bench.worker import compile_cache
from bench.worker.compile_cache import Cache
from bench.worker.dynamo import (
    CompilerLog,
    Counts,
    Ran,
    ScopeWatch,
    counted_graphs,
    keep_metrics,
)
from bench.worker.instrument import Sample
from bench.worker.structure import module_names, scopes_of
from compilers.base import BASELINE, Backend, Scope, UnsupportedPipelineError
from compilers.scopes import resolve_scope

PREPARE = "prepare"
"""Stands in counts by scope for what was compiled before anything was called."""


@dataclass(frozen=True)
class Judgement:
    """Whether a backend is active, scope by scope.

    Attributes:
        active: every scope that was asked for and called is proved.
        scope: the scopes that are proved.
        reason: why it is not active, in one sentence.
        warnings: what else a reader should know.
    """

    active: bool
    scope: tuple[str, ...]
    reason: str | None = None
    warnings: tuple[str, ...] = ()


def judge(
    name: str,
    *,
    wanted: Sequence[str],
    runtime: str,
    changed: Sequence[str],
    counts: Mapping[str, Counts],
    entered: Iterable[str],
    failures: Sequence[str] = (),
    limits_hit: Sequence[str] = (),
    admitted: str | None = None,
    counted: bool = False,
) -> Judgement:
    """Decide from what was seen whether backend ``name`` is active.

    Args:
        wanted: scopes that were asked for, or that the backend says it compiled.
        runtime: the backend's own ``Evidence.runtime``.
        changed: keys of ``structure`` that differ after ``prepare``.
        counts: what torch compiled, by scope.
        entered: scopes that were called during warm-up.
        failures: compile errors that torch swallowed.
        limits_hit: code that reached torch's recompile limit.
        admitted: the backend's own ``Evidence.fallback``.
        counted: whether ``Counts.runs`` counts every run of compiled code, which then is the proof:
            parts that share a graph compile it once, and code past a limit compiles none.
    """
    graphs = {scope: count.graphs for scope, count in counts.items() if count.graphs}
    if name == BASELINE:
        odd = f"backend {BASELINE} is the eager baseline, yet torch compiled graphs while it ran"
        return Judgement(True, (), None, (odd,) if graphs else ())
    if not changed and not graphs:
        return Judgement(False, (), f"{name} changed nothing in the pipeline: it ran eager")

    if counted:
        graphs = {scope: count.runs for scope, count in counts.items() if count.runs}
    # Graphs made in prepare name no scope: they prove at most as many changed scopes as they are.
    ahead = [part for part in wanted if part in changed and part not in graphs]
    proved_ahead = ahead if len(ahead) <= graphs.get(PREPARE, 0) else []

    def proved(scope: str) -> bool:
        if runtime != "dynamo":
            return scope in changed
        return scope in graphs or (not counted and scope in proved_ahead)

    called = set(entered)
    scope = tuple(part for part in wanted if proved(part))
    absent = [part for part in wanted if part not in scope and part in called]
    unused = [part for part in wanted if part not in scope and part not in called]
    warnings = tuple(f"{part} was to be compiled, but this task never calls it" for part in unused)
    if runtime == "dynamo" and proved_ahead and not counted:
        parts = ", ".join(proved_ahead)
        warnings += (
            f"{parts}: compiled before any call, so which part it was is the backend's word",
        )
    if admitted is not None:
        return Judgement(False, scope, f"{name}: {admitted}", warnings)
    if limits_hit:
        reason = (
            f"{name}: torch reached its recompile limit in {limits_hit[0]} and runs eager there"
        )
        return Judgement(False, scope, reason, warnings)
    if failures:
        reason = f"{name}: torch ran code eager after a compile error: {failures[0]}"
        return Judgement(False, scope, reason, warnings)
    if absent:
        what = "nothing was changed there"
        if runtime == "dynamo":
            what = "no compiled graph was run there" if counted else "no graph was compiled there"
        partly = f"; {', '.join(scope)} is compiled" if scope else ""
        return Judgement(
            False,
            scope,
            f"{name} was to compile {', '.join(absent)}, and {what}: it ran eager{partly}",
            warnings,
        )
    if wanted and not scope:
        return Judgement(
            False, (), f"{name}: this task calls none of {', '.join(wanted)}", warnings
        )
    if not wanted:
        if runtime == "dynamo" and not graphs:
            return Judgement(False, (), f"{name} compiled no graph: it ran eager", warnings)
        scope = tuple(
            part for part in SCOPES if part in (graphs if runtime == "dynamo" else changed)
        )
        if runtime != "dynamo" and set(changed) <= {"pipeline"}:
            what = "the pipeline object, and no part that it calls"
            return Judgement(False, (), f"{name} changed only {what}: it ran eager", warnings)
    return Judgement(True, scope, None, warnings)


def wanted_scopes(pipeline: Any, options: Any, claimed: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes to prove: those the options ask for and those the backend says it compiled.

    Names that this pipeline does not have are kept as they are, and will not be proved.
    """
    asked: list[str] = []
    for name in getattr(options, "scope", ()):
        try:
            asked.extend(resolve_scope(pipeline, (name,)))
        except UnsupportedPipelineError:
            asked.append(name)
    return tuple(dict.fromkeys((*asked, *claimed)))


class Proof:
    """Everything seen of one backend on one pipeline. Made before ``prepare``.

    Attributes:
        watch: counts by scope, to be told about borders during warm-up.
        log: reasons and cache figures.
    """

    def __init__(self, backend: Backend, options: Any, pipeline: Any) -> None:
        keep_metrics()
        self.watch = ScopeWatch()
        self.log = CompilerLog()
        self._backend = backend
        self._options = options
        self._pipeline = pipeline
        self._counted_before = counted_graphs()
        self._most: dict[str, float] = {}
        self._proved: tuple[str, ...] = ()
        self._wanted: tuple[str, ...] = ()
        self._changed: tuple[str, ...] = ()
        self._modules: dict[str, str] = {}

    def prepared(self, claimed: Scope, changed: Sequence[str]) -> None:
        """Note what the backend says it compiled and what it changed, before anything else does."""
        keep_metrics()
        self._wanted = wanted_scopes(self._pipeline, self._options, claimed.compiled)
        self._changed = tuple(changed)
        self._modules = module_names(self._pipeline, scopes_of(self._pipeline))

    def cache_found(self, asked: Cache, filled: bool) -> tuple[Cache, str | None]:
        """Return which compile cache the cell really had, and a warning if not the one asked for.

        A backend that compiled no graph is not judged: it has its own way or none to use a cache.
        """
        if self.watch.total().graphs == 0:
            return asked, None
        # A backend of another package may answer with an older Evidence.
        brought = getattr(self._backend.evidence(), "brought_bytes", 0)
        if brought and asked == "fresh":
            return compile_cache.found_brought(brought, self.log.compile_cache())
        return compile_cache.found(asked, filled, self.log.compile_cache())

    def judge(self) -> Judgement:
        """Decide, after warm-up, whether the backend is active."""
        said = self._backend.evidence()
        found = judge(
            self._backend.name,
            wanted=self._wanted,
            runtime=said.runtime,
            changed=self._changed,
            counts=self.watch.by_scope,
            entered=self.watch.entered,
            failures=self.log.failures(),
            limits_hit=self.log.limits_hit(),
            admitted=said.fallback,
            counted=self._is_counted(),
        )
        self._proved = found.scope if said.runtime == "dynamo" and self._is_counted() else ()
        return found

    def _is_counted(self) -> bool:
        """Return whether the runs of all graphs compiled so far are counted."""
        made = counted_graphs() - self._counted_before
        return 0 < self.watch.total().graphs <= made

    def saw(self, sample: Sample) -> None:
        """Note how many graphs each scope runs in a call of the warm-up."""
        for call in sample.ran:
            for scope, (entries, ran) in call.items():
                if not ran.replays:
                    self._most[scope] = max(self._most.get(scope, 0), ran.graphs / entries)

    def eager(self, sample: Sample) -> str | None:
        """Return why a call, perhaps of another shape, is not what was proved; None if it is.

        A scope ran eager if it ran no compiled code, and in part if it ran less than in warm-up
        after torch gave up on some. Replays of CUDA graphs stand for what was captured.
        """
        for call in sample.ran:
            for scope in self._proved:
                entries, ran = call.get(scope, (0, Ran(0, 0)))
                if not entries or ran.replays:
                    continue
                each, most = ran.graphs / entries, self._most.get(scope, 0)
                if each >= most > 0:
                    continue
                why = ""
                if limits := self.log.limits_hit():
                    why = f": torch reached its recompile limit in {limits[0]} and runs eager there"
                elif failures := self.log.failures():
                    why = f": torch ran code eager after a compile error: {failures[0]}"
                if each and not why:
                    continue
                what = f"ran {each:g} of {most:g} compiled graphs a call" if each else "ran eager"
                return f"{self._backend.name}: {scope} {what}{why}"
        return None

    def fields(self, judgement: Judgement, choice: BackendChoice) -> dict[str, Any]:
        """Return the record's ``backend``."""
        said = self._backend.evidence()
        total = self.watch.total()
        return {
            "name": choice["name"],
            "options": dict(choice["options"]),
            "environment": choice["environment"],
            "lossy": self._backend.lossy or said.lossy,
            "requested": list(self._wanted),
            "active": judgement.active,
            "scope": list(judgement.scope),
            "evidence": {
                "runtime": said.runtime,
                "details": said.details,
                "graphs": total.graphs,
                "graph_breaks": total.graph_breaks,
                "graph_break_reasons": self.log.graph_breaks(),
                "recompiles": total.recompiles,
                "recompile_reasons": self.log.recompile_reasons(),
                "compile_failures": self.log.failures(),
                "by_scope": {
                    scope: dataclasses.asdict(counts)
                    for scope, counts in self.watch.by_scope.items()
                },
                "changed": list(self._changed),
                "modules": self._modules,
                "compile_cache": self.log.compile_cache(),
            },
        }

"""Runs a plan: each cell and round in a worker process, each result a record in the run folder."""

from bench.runner.execute import execute
from bench.runner.lane import Patience, RunnerError, Start
from bench.runner.launch import EnvironmentUnavailable, Program, interpreter_for
from bench.runner.ui import RunSummary, Silent, Task, Ui

__all__ = [
    "EnvironmentUnavailable",
    "Patience",
    "Program",
    "RunSummary",
    "RunnerError",
    "Silent",
    "Start",
    "Task",
    "Ui",
    "execute",
    "interpreter_for",
]

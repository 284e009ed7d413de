"""Runs a plan: each cell and round in a worker process, each result a record in the run folder."""

from bench.environments import EnvironmentUnavailable, Interpreter
from bench.runner.execute import execute
from bench.runner.lane import Patience, RunnerError, Start
from bench.runner.launch import Program
from bench.runner.ui import RunSummary, Silent, Task, Ui

__all__ = [
    "EnvironmentUnavailable",
    "Interpreter",
    "Patience",
    "Program",
    "RunSummary",
    "RunnerError",
    "Silent",
    "Start",
    "Task",
    "Ui",
    "execute",
]

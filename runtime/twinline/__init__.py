"""Twinline predicts parallel training, runs the same program for real, and compares the two.

``predict(experiment(model="gpt", layers=4, pipeline=2, microbatches=4))`` is the short way.
``docs/api.md`` lists every name. Importing this package imports neither torch, which only the
processes of a run need, nor matplotlib, which only figures need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from runtime.execution.calibrating import calibrate
from runtime.execution.comparing import Outcome, compare
from runtime.execution.results import Execution
from runtime.execution.running import run
from runtime.keep_profile import keep_profile
from runtime.launch.launcher import LaunchError, Workers
from runtime.validation.suite import cases_of
from runtime.validation.validation import Validation, validate_suite
from simulator.analysis.cause import Cause
from simulator.analysis.comparison import Comparison, OtherProgramError, compare_timelines
from simulator.analysis.memory_fit import MemoryFit
from simulator.analysis.results import Metrics, RankMetrics, Result
from simulator.cluster.catalogue import clusters
from simulator.cluster.cluster import Cluster
from simulator.cluster.collective_algorithms import ring_seconds
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import load_profile
from simulator.cluster.resolve import from_profile
from simulator.engine.costs import costs_of
from simulator.engine.engine import Costs, simulate
from simulator.experiment.describe import describe_plan
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment, load, parse
from simulator.planner.schedules import PipelineSetting, compare_schedules
from simulator.prediction import Prediction, predict
from simulator.program.check import check_program
from simulator.program.csv_text import to_csv
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import COMPUTE_STREAM, Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.strategies.lowering import lower
from simulator.strategies.registry import strategies
from simulator.timeline.statistics import Statistics
from simulator.timeline.timeline import Timeline
from simulator.timeline.trace import TraceError, load_trace, save_trace
from simulator.units import nbytes, percent, seconds

FIGURE_MODULES = {
    "timeline_figure": "simulator.charts.timeline",
    "comparison_figure": "simulator.charts.timeline",
    "timelines_figure": "simulator.charts.timeline",
    "memory_figure": "simulator.charts.memory",
    "schedules_figure": "simulator.charts.schedules",
    "profile_figure": "simulator.charts.profile",
}
"""The functions that draw, and the modules that have them; these import matplotlib."""

__all__ = [
    "COMPUTE_STREAM",
    "Cause",
    "Cluster",
    "Comparison",
    "Costs",
    "Execution",
    "Experiment",
    "ExperimentError",
    "Instruction",
    "LaunchError",
    "MemoryFit",
    "Metrics",
    "Op",
    "OtherProgramError",
    "Outcome",
    "PipelineSetting",
    "Prediction",
    "Profile",
    "Program",
    "ProgramError",
    "RankMetrics",
    "Result",
    "Statistics",
    "Task",
    "Timeline",
    "TraceError",
    "Validation",
    "Workers",
    "calibrate",
    "cases_of",
    "check_program",
    "clusters",
    "compare",
    "compare_schedules",
    "compare_timelines",
    "comparison_figure",
    "costs_of",
    "describe_plan",
    "experiment",
    "from_profile",
    "keep_profile",
    "load",
    "load_profile",
    "load_trace",
    "lower",
    "memory_figure",
    "nbytes",
    "parse",
    "percent",
    "predict",
    "profile_figure",
    "ring_seconds",
    "run",
    "save_trace",
    "schedules_figure",
    "seconds",
    "simulate",
    "strategies",
    "timeline_figure",
    "timelines_figure",
    "to_csv",
    "validate_suite",
]


def __getattr__(name: str) -> Any:
    """Import a figure's module when somebody asks for the figure."""
    if name in FIGURE_MODULES:
        return getattr(import_module(FIGURE_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__

"""Predict parallel training: workloads, clusters, strategies, programs, engine, timelines.

Torch-free. ``predict(load("experiment.toml"))`` is the short way; `simulator.charts` draws.
"""

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load, parse
from simulator.prediction import Prediction, predict
from simulator.program.program import Program
from simulator.strategies.lowering import lower
from simulator.timeline.timeline import Timeline

__all__ = [
    "Experiment",
    "ExperimentError",
    "Prediction",
    "Program",
    "Timeline",
    "load",
    "lower",
    "parse",
    "predict",
]

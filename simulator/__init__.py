"""Predict parallel training: workloads, clusters, strategies, programs, engine, timelines.

Torch-free. ``predict(load("experiment.toml"))`` is the short way; `simulator.plot` draws.
"""

from simulator.experiment import Experiment, ExperimentError, load, parse
from simulator.prediction import Prediction, predict
from simulator.program import Program
from simulator.strategies import lower
from simulator.timeline import Timeline

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

"""Ranks that go at their own pace: the checks that all styles with arrivals have in common."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError


def check_whole_models(experiment: Experiment, reason: str) -> None:
    """Refuse degrees that divide the model of a rank.

    Args:
        experiment: names the degrees.
        reason: why a rank has a whole model.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    for key in ("pipeline", "tensor", "context", "expert"):
        if getattr(parallel, key) > 1:
            raise ExperimentError(
                f"parallel.{key} = {getattr(parallel, key)}: with parallel.data_style = "
                f"{parallel.data_style!r} {reason}; allowed: 1"
            )


def check_backend(experiment: Experiment, need: str) -> None:
    """Refuse a backend that cannot receive from whoever comes first.

    Args:
        experiment: names the backend.
        need: what the style asks of it.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    run, style = experiment.run, experiment.parallel.data_style
    if run.device == "cuda" and run.backend != "gloo":
        raise ExperimentError(
            f"run.backend = {run.backend!r}: with parallel.data_style = {style!r} {need}, which "
            "NCCL cannot; allowed on GPUs: 'gloo'"
        )

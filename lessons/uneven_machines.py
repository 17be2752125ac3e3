"""Workers of uneven speed, for the lesson on the barrier: who is slow, who waits, how stale."""

from __future__ import annotations

from typing import Any

from lessons import lesson_tools
from twinline import Execution, Experiment, Prediction, parse

# Machines of one CPU core each. What they train learns within seconds, and so each computes
# a thousand times slower here: as if the model had a thousand times as much to compute.
MACHINES = {"preset": "laptop", "devices_per_node": 1, "node_bandwidth_gbit": 10.0}
MODEL = {"model": "mlp", "layers": 2, "hidden": 32, "sequence": 8}
SLOWNESS = 1000.0


def on_machines(
    plan: dict[str, Any],
    workers: int = 16,
    *,
    straggler: float = 1.0,
    spread: float = 0.0,
    horizon: int = 100,
    learning_rate: float = 0.01,
) -> Experiment:
    """The plan for workers of which the last computes so many times longer than the others.

    With a `spread` the time of every step is drawn from a shifted exponential distribution of
    that standard deviation, as a share of its mean.
    """
    jitter = {"jitter": "shifted-exponential", "jitter_spread": spread} if spread else {}
    slowdown = [SLOWNESS] * (workers - 1) + [SLOWNESS * straggler]
    return parse(
        {
            "workload": MODEL | {"global_batch": 4 * workers},
            "parallel": {"data": workers} | plan,
            "run": {"horizon": horizon, "learning_rate": learning_rate},
            "cluster": MACHINES | jitter | {"slowdown": slowdown},
        }
    )


def here(plan: dict[str, Any], steps: int, slower: float) -> Experiment:
    """The plan for two workers on this machine, the second of which is so many times slower."""
    return parse(
        {
            "workload": MODEL | {"global_batch": 8},
            "parallel": {"data": 2} | plan,
            "cluster": {"preset": "laptop", "slowdown": [30.0, 30.0 * slower]},
            "run": {"horizon": steps, "iterations": 3, "warmup": 1, "pace": 5.0},
        }
    )


def slowest(workers: int, spread: float, backup: int = 0) -> float:
    """Return the mean of the longest time of all workers but `backup`, if the mean of all is 1."""
    return 1 - spread + spread * sum(1 / k for k in range(backup + 1, workers + 1))


def compute_seconds(prediction: Prediction) -> float:
    """Return how long the first worker computes in a step, on average over those of the program."""
    return lesson_tools.work_seconds(prediction)[0] / prediction.program.horizon


def batch_seconds(result: Prediction | Execution) -> float:
    """Return the seconds in which gradients of a global batch are used, once all has settled."""
    rates = result.metrics.rates
    assert rates is not None
    return result.experiment.global_batch / rates.samples_per_s


def mean_staleness(
    result: Prediction | Execution, worker: int | None = None, pushes: int | None = None
) -> float:
    """Return how many updates old gradients are on average when they are used.

    Those of one worker, or of all; of each worker the first few pushes, or all.
    """
    behind = [
        updates
        for row in result.staleness
        if worker in (None, row.worker)
        for updates in row.versions_behind[:pushes]
        if updates is not None
    ]
    return sum(behind) / len(behind)

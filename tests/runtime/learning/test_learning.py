"""Learning in virtual time is the training that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from runtime.learning.learning import learn
from simulator.cluster.resolve import resolve
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment
from simulator.prediction import predict

TINY: dict[str, Any] = {
    "model": "mlp",
    "layers": 2,
    "hidden": 8,
    "sequence": 8,
    "dtype": "fp64",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "warmup": 0,
    "preset": "laptop",
}


def means(losses: np.ndarray, points: int) -> list[float]:
    """The mean of every so many losses."""
    found: list[float] = losses.reshape(-1, points).mean(axis=1).tolist()
    return found


@pytest.mark.parametrize(
    "keys",
    [
        {"data": 2},
        {"data": 2, "pipeline": 2, "microbatches": 2},
        {"data": 2, "data_style": "parameter-server", "clip_norm": 0.5},
        {"data": 2, "data_style": "scatter-gather", "microbatches": 2},
        {"data": 2, "data_style": "work-queue", "microbatches": 3, "slowdown": [1.0, 5.0]},
        {"data": 2, "learning_rate_schedule": "cosine", "learning_rate_decay": 4},
    ],
    ids=str,
)
def test_a_synchronous_plan_is_plain_training(
    keys: dict[str, Any], reference: Callable[..., Any]
) -> None:
    (curve,) = learn([experiment(**TINY | keys)], steps=5).curves
    shares = {key: keys[key] for key in ("data", "clip_norm", "microbatches") if key in keys}
    rates = {key: value for key, value in keys.items() if key.startswith("learning_rate")}
    _, _, losses = reference(experiment(**TINY | shares | rates, iterations=5))
    assert curve.steps == 5
    assert curve.samples[-1] == 5 * 4 * 2 * keys.get("microbatches", 1)
    assert means(curve.loss, curve.step_points) == pytest.approx(losses, rel=1e-12)
    assert (np.diff(curve.time_s) >= 0).all()


def test_a_plateau_is_looked_at_between_iterations(reference: Callable[..., Any]) -> None:
    keys = {"learning_rate_schedule": "plateau", "plateau_patience": 0, "learning_rate": 3.0}
    (curve,) = learn([experiment(**TINY | keys)], steps=6).curves
    _, _, losses = reference(experiment(**TINY | keys, iterations=6))
    assert means(curve.loss, 1) == pytest.approx(losses, rel=1e-12)


def test_time_samples_and_bytes_are_those_of_the_prediction() -> None:
    plan = experiment(**TINY, data=2)
    (curve,) = learn([plan], steps=4).curves
    program = predict(plan).program
    sizes = {task.nbytes for columns in program.columns for task in columns.tasks if task.group}
    assert curve.samples.tolist() == [4.0 * n for n in range(1, 9)]
    # Two ranks send what they reduce once each; the last step's is sent after its losses.
    assert curve.bytes_sent[-1] == pytest.approx(3 * 2 * sum(sizes))
    assert curve.bytes_sent[0] == 0
    whole = predict(experiment(**TINY, data=2, horizon=4))
    assert 0 < curve.time_s[0] < curve.time_s[-1] < whole.iteration_time_s


def test_a_training_that_is_stopped_is_the_beginning_of_one_that_is_not() -> None:
    plan = experiment(
        **TINY, data=3, data_style="asynchronous", jitter="lognormal", jitter_spread=0.5
    )
    whole = learn([plan], steps=12).curves[0]
    end_s = float(whole.time_s[15])
    part = learn([plan], until_s=end_s).curves[0]
    assert part.time_s[-1] == end_s
    assert (part.loss.size, part.steps) == (16, 5)
    assert part.time_s.tolist() == whole.time_s[: part.time_s.size].tolist()
    assert part.loss.tolist() == whole.loss[: part.loss.size].tolist()
    assert part.bytes_sent.tolist() == whole.bytes_sent[: part.loss.size].tolist()


def test_notes_say_what_does_not_compare() -> None:
    one, other = experiment(**TINY), experiment(**(TINY | {"hidden": 16, "preset": "dgx-h100"}))
    found = learn([one, other], steps=2, target_loss=1e-6, names=["one", "other"])
    notes = "\n".join(found.notes)
    assert "different workloads, whose losses do not compare: mlp (" in notes
    assert "different clusters: laptop; dgx-h100" in notes
    assert "2 plans did not reach a loss of 1e-06: one, other" in notes
    local = experiment(**TINY, data=2, data_style="local-sgd", sync_period=2, horizon=2)
    assert any("4 steps instead of 3" in note for note in learn([local], steps=3).notes)
    wild = learn([experiment(**TINY | {"learning_rate": 1e9, "dtype": "fp32"})], steps=12)
    assert any("diverges" in note for note in wild.notes)
    small = resolve(one)
    kinds = {name: replace(kind, memory_bytes=1) for name, kind in small.kinds.items()}
    full = learn([one], steps=1, cluster=replace(small, kinds=kinds), names=["full"])
    assert any("full: on laptop, memory: " in note for note in full.notes)


@pytest.mark.parametrize(
    ("keys", "arguments", "message"),
    [
        ({"model": "unit"}, {}, "workload.model = 'unit': has nothing to learn"),
        ({"pace": 2.0}, {}, "run.pace = 2: learning takes the cluster's own time"),
        ({}, {"steps": 1, "until_s": 1.0}, "both are given"),
        ({}, {"steps": 0}, "steps = 0: allowed: more than 0"),
        (TINY, {"until_s": 1e-9}, "until 1e-09 s: no loss is known by then; allowed: more"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    keys: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExperimentError) as caught:
        learn([experiment(**keys)], **arguments)
    assert message in str(caught.value)

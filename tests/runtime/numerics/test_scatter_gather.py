"""A model on one rank, for which the others compute, trains as one process does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.rank.replay import Replay
from simulator.prediction import predict

ASKED = {"model": "mlp", "data_style": "scatter-gather"}
PLANS = [
    {"data": 2, "microbatches": 2, "optimizer": "adam"},
    {"data": 3, "layers": 5, "bucket_mb": 1e-6, "optimizer": "momentum"},
    {"data": 2, "microbatches": 3, "clip_norm": 0.1, "recompute": "full", "bucket_mb": 1e-6},
    {"data": 2, "skips": True, "layers": 4},
]


@pytest.mark.parametrize("keys", PLANS, ids=str)
def test_gradients_parameters_and_losses_are_those_of_one_process(
    keys: dict[str, Any], run: Callable[..., Any], equals_one_process: Callable[..., None]
) -> None:
    equals_one_process(run(**ASKED, **keys, iterations=3))


def test_steps_in_one_program_give_the_same_numbers(run: Callable[..., Any]) -> None:
    keys = {**ASKED, "data": 3, "microbatches": 2, "warmup": 0}
    apart, together = run(**keys, iterations=4), run(**keys, iterations=2, horizon=2)
    assert together.measurement.losses == apart.measurement.losses
    assert together.measurement.parameters_norm == apart.measurement.parameters_norm


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_is_that_of_all_reduces(dtype: str, run: Callable[..., Any]) -> None:
    keys = {"data": 2, "dtype": dtype, "iterations": 3}
    scattered, plain = run(**keys, **ASKED), run(**keys, model="mlp")
    assert scattered.measurement.losses == pytest.approx(plain.measurement.losses, rel=1e-6)
    assert scattered.measurement.loss_scale == plain.measurement.loss_scale


def test_memory_is_held_as_predicted(run: Callable[..., Any]) -> None:
    ran = run(**ASKED, **PLANS[0], iterations=3)
    predicted = predict(ran.experiment).recorded
    assert [m.peak for m in ran.measurement.timeline.memory] == [m.peak for m in predicted.memory]


def test_the_others_compute_with_what_rank_0_sends(experiment: Callable[..., Any]) -> None:
    """They make the same input for themselves, so that of rank 1 is changed where it is sent."""
    plan = experiment(**ASKED, data=2, microbatches=1)
    program = predict(plan).program

    def losses(factor: float) -> list[float]:
        replay = Replay(plan, program)
        root = replay.contexts[0]
        begin = root.begin

        def begin_changed(batches: Any, record: Any = None) -> None:
            begin({key: (x * factor ** key[1], y) for key, (x, y) in batches.items()}, record)

        root.begin = begin_changed  # type: ignore[method-assign]
        return [float(loss) for _, loss in replay.iterate()]

    same, changed = losses(1.0), losses(2.0)
    assert [one != other for one, other in zip(same, changed, strict=True)] == [False, True]

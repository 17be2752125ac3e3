"""Tensors that skip whole stages are sent from each to the next: one process gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.prediction import predict

BASE = {"model": "mlp", "skips": True, "layers": 6, "microbatches": 4}
CASES: list[dict[str, Any]] = [
    {"pipeline": 1},
    {"pipeline": 2},
    {"pipeline": 3, "schedule": "gpipe", "optimizer": "adam", "learning_rate": 0.01},
    {"pipeline": 4, "layers": 7},
    {"pipeline": 3, "schedule": "zb-h1"},
    {"pipeline": 4, "schedule": "zb-h2", "microbatches": 6},
    {"pipeline": 3, "recompute": "full"},
    {"pipeline": 2, "data": 2, "bucket_mb": 0.001, "zero": 1},
    {"pipeline": 2, "data": 2, "bucket_mb": 0.001, "zero": 3},
    {"pipeline": 2, "horizon": 2, "schedule": "eager-1f1b", "clip_norm": 0.1},
    {"pipeline": 2, "data": 1, "data_style": "parameter-server", "servers": 2, "bucket_mb": 0.001},
    {"pipeline": 1, "data": 2, "bucket_mb": 0.001},
    {"pipeline": 2, "split": [2, 4]},  # block 2 and 4 of one segment read what comes in
    {"pipeline": 2, "split": [2, 4], "schedule": "zb-h1"},
]


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_equals_one_process(
    keys: dict[str, Any],
    run: Callable[..., Any],
    reference: Callable[..., Any],
    experiment: Callable[..., Any],
) -> None:
    ran = run(**BASE | keys)
    steps = ran.experiment.run.horizon * ran.experiment.run.iterations
    once = {k: v for k, v in keys.items() if k in ("layers", "optimizer", "learning_rate")}
    once |= {k: v for k, v in keys.items() if k in ("microbatches", "clip_norm", "data")}
    one = experiment(**BASE | once | {"iterations": steps})
    parameters, _, losses = reference(one)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for replica in ran.parameters:
        assert replica.keys() == parameters.keys()
        for key, expected in parameters.items():
            assert (replica[key] - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(
    "keys", [{}, {"recompute": "full"}, {"data": 2, "bucket_mb": 0.001}], ids=str
)
def test_memory_is_held_as_predicted(keys: dict[str, Any], run: Callable[..., Any]) -> None:
    """Without messages, whose moments decide what is held together, it is so to the byte."""
    ran = run(**BASE | keys)
    predicted = predict(ran.experiment, program=ran.program).recorded
    measured = ran.measurement.timeline.memory
    assert [m.peak for m in measured] == [m.peak for m in predicted.memory]


def test_a_stage_hands_on_what_it_does_not_read(run: Callable[..., Any]) -> None:
    program = run(**BASE | {"pipeline": 3}).program
    middle = program.ranks[1]
    sent = [i.task for i in middle if i.task.mnemonic == "SEND_F" and i.microbatch == 0]
    assert [str(task.tensor) for task in sent] == ["act:4", "act:2", "act:1"]
    assert [task.label(0) for task in sent] == ["1SEND_F0", "1SEND_F0.1", "1SEND_F0.2"]
    read = {name for i in middle if i.task.op.value == "F" for name in i.task.sources}
    assert {str(name) for name in read} == {"act:2"}

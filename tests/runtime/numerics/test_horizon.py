"""Several training steps in one program train as so many programs of one step do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CASES = [
    {"pipeline": 2, "microbatches": 3},
    {"data": 2, "zero": 1, "microbatches": 2, "bucket_mb": 0.001},
    {"data": 2, "zero": 2, "microbatches": 2, "optimizer": "adam"},
    {"data": 2, "zero": 3, "clip_norm": 0.1},
    {"data": 2, "tensor": 2, "schedule": "gpipe"},
    {"data": 2, "data_style": "parameter-server", "servers": 2, "bucket_mb": 0.003},
    {"data": 2, "data_style": "parameter-server", "servers": "shared", "bucket_mb": 0.001},
    {"dtype": "fp16", "data": 2, "clip_norm": 1.0},
]


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_steps_in_one_program_give_the_same_numbers(
    keys: dict[str, Any], run: Callable[..., Any]
) -> None:
    apart = run(**keys, iterations=4, warmup=0)
    together = run(**keys, iterations=2, horizon=2, warmup=0)
    assert together.measurement.losses == apart.measurement.losses
    assert len(together.measurement.iteration_times) == 2
    assert together.measurement.parameters_norm == apart.measurement.parameters_norm
    assert together.measurement.loss_scale == apart.measurement.loss_scale
    assert together.measurement.timeline.horizon == 2
    for mine, theirs in zip(together.shares, apart.shares, strict=True):
        for key, value in mine[0].items():
            assert value.equal(theirs[0][key])

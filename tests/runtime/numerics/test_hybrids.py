"""Products of three ways to split, on eight ranks, train the model of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runtime.launch.launcher import Workers

TINY = {"layers": 2, "hidden": 16, "heads": 4, "microbatches": 2}
CUBE = {"tensor": 2, "pipeline": 2, "data": 2}
PLANS = [
    CUBE | {"zero": 1, "optimizer": "adam", "sequence_parallel": True, "clip_norm": 0.5},
    CUBE | {"zero": 3, "model": "bert", "schedule": "zb-h1", "bucket_mb": 0.002},
    CUBE | {"rank_order": ["tensor", "context", "expert", "pipeline", "data"]},
    {"tensor": 2, "pipeline": 2, "context": 2},
    {"tensor": 2, "data": 2, "context": 2, "context_style": "ulysses", "zero": 1}
    | {"sequence_parallel": True, "optimizer": "adam", "clip_norm": 0.5},
    {"pipeline": 2, "context": 2, "expert": 2, "model": "moe-gpt", "capacity_factor": 8.0},
    {"tensor": 2, "pipeline": 2, "expert": 2, "model": "moe-gpt", "sequence_parallel": True},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.fixture(scope="module")
def eight() -> Iterator[Workers]:
    with Workers(8) as workers:
        yield workers


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_a_product_of_three_is_the_model_of_one_process(run_on, eight, equals_unsplit, keys):
    equals_unsplit(run_on(eight, **{**TINY, **keys}))

"""What is computed again in the backward pass changes memory and time, and no number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

PLANS: list[dict[str, Any]] = [
    {"microbatches": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
    {"pipeline": 2, "microbatches": 4, "schedule": "interleaved-1f1b", "virtual_stages": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1"},
    {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2},
    {"data": 2, "microbatches": 2, "bucket_mb": 0.003},
]
CASES = [
    {"model": model, "recompute": how, **plan}
    for plan in PLANS
    for model in ("gpt", "bert", "moe-gpt", "mlp")
    for how in ("selective", "full")
    if (model, how) != ("mlp", "selective")
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def without(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "recompute"}


@pytest.mark.parametrize("keys", CASES, ids=name_of)
def test_not_a_bit_is_different(run, keys):
    keys = {"iterations": 3, **keys}
    again, once = run(**keys), run(**without(keys))
    assert again.hash != once.hash or keys["recompute"] == "selective"
    assert again.measurement.losses == once.measurement.losses
    for replica, parameters in enumerate(once.parameters):
        for mine, theirs in (
            (again.gradients[replica], once.gradients[replica]),
            (again.parameters[replica], parameters),
        ):
            assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == []

"""Servers that update for trainers train the model that one process trains."""

from __future__ import annotations

from typing import Any

import pytest

ONE, TWO = ({"data_style": "parameter-server", "servers": number} for number in (1, 2))
SHARED = {"data_style": "parameter-server", "servers": "shared", "bucket_mb": 1e-6}
PLANS = [
    {"data": 2, "microbatches": 2, **SHARED, "optimizer": "adam"},
    {"data": 3, "model": "mlp", "layers": 5, "optimizer": "momentum", **SHARED},
    {"data": 2, "clip_norm": 0.5, "pipeline": 2, "microbatches": 3, **SHARED},
    {"microbatches": 3, **ONE},
    {"data": 2, "microbatches": 2, **ONE},
    {"data": 2, "microbatches": 2, "bucket_mb": 0.003, "optimizer": "adam", **TWO},
    {"data": 3, "model": "mlp", "layers": 5, "bucket_mb": 1e-6, "optimizer": "momentum", **ONE},
    {"data": 2, "model": "moe-gpt", "capacity_factor": 0.8, "bucket_mb": 0.003, **TWO},
    {"data": 2, "clip_norm": 0.5, "bucket_mb": 0.003, **TWO},
    {
        "pipeline": 3,
        "clip_norm": 0.5,
        "microbatches": 4,
        "optimizer": "adamw",
        "bucket_mb": 0.003,
        **ONE,
    },
    {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2, **TWO},
    {"pipeline": 2, "microbatches": 2, "recompute": "full", "bucket_mb": 1e-6, **TWO},
]
SPLIT = [
    {"tensor": 2, "data": 2, "clip_norm": 0.5, "sequence_parallel": True, **SHARED},
    {"context": 2, "data": 2, **SHARED},
    {
        "expert": 2,
        "data": 2,
        "model": "moe-gpt",
        "clip_norm": 0.5,
        "capacity_factor": 0.8,
        **SHARED,
    },
    {"tensor": 2, "clip_norm": 0.5, "optimizer": "adam", "bucket_mb": 0.001, **ONE},
    {"tensor": 2, "clip_norm": 0.5, "sequence_parallel": True, "bucket_mb": 0.001, **TWO},
    {"context": 2, "microbatches": 2, "bucket_mb": 0.003, **TWO},
    {"expert": 2, "model": "moe-gpt", "clip_norm": 0.5, "capacity_factor": 0.8, **TWO},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_gradients_parameters_and_losses_are_those_of_one_process(run, equals_one_process, keys):
    equals_one_process(run(**keys, iterations=3))


def test_trainers_that_serve_each_other_know_of_overflows(run):
    keys = {"data": 2, "dtype": "fp16", "iterations": 3}
    shared, plain = run(**keys, **SHARED), run(**keys, bucket_mb=1e-6)
    assert shared.measurement.losses == plain.measurement.losses
    assert shared.measurement.loss_scale == plain.measurement.loss_scale
    assert shared.measurement.loss_scale["skipped_steps"] > 0


@pytest.mark.parametrize("keys", SPLIT, ids=name_of)
def test_so_they_are_where_layers_are_cut_into_parts(run, equals_unsplit, keys):
    equals_unsplit(run(**keys, iterations=3))

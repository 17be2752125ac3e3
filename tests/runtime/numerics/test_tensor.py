"""Layers that are split over ranks train the model that one process trains."""

from __future__ import annotations

from typing import Any

import pytest

ALONE = [
    {"tensor": tensor, "model": model, **more}
    for tensor in (2, 4)
    for model in ("gpt", "bert")
    for more in ({}, {"sequence_parallel": True, "microbatches": 2})
] + [
    {"tensor": tensor, "model": "mlp", "tensor_style": style, "layers": 3}
    for tensor in (2, 4)
    for style in ("column", "row", "megatron")
]
# Heads of keys and values: as many as ranks, and fewer, so that several ranks have the same.
ALONE += [
    {"tensor": 2, "model": "llama", "kv_heads": 2, "bias": "all", "sequence_parallel": True},
    {"tensor": 4, "model": "llama", "kv_heads": 2, "qk_norm": True, "microbatches": 2},
    {"tensor": 4, "model": "llama", "kv_heads": 1, "sequence_parallel": True, "head_dim": 6},
]
SHARED = {"sequence_parallel": True}
PAIRS = [
    {"tensor": 2, "pipeline": 2, "microbatches": 3, "model": "bert", **SHARED},
    {"tensor": 2, "pipeline": 2, "microbatches": 2, "schedule": "zb-h1", **SHARED},
    {
        "tensor": 2,
        "pipeline": 2,
        "microbatches": 3,
        "schedule": "zb-v",
        "virtual_stages": 2,
        "model": "bert",
        "layers": 4,
        **SHARED,
    },
    {"tensor": 2, "pipeline": 2, "microbatches": 2, "model": "mlp", "tensor_style": "column"},
    {
        "tensor": 2,
        "pipeline": 2,
        "microbatches": 4,
        "layers": 4,
        "model": "mlp",
        "tensor_style": "row",
        "schedule": "dualpipe-v",
        "virtual_stages": 2,
    },
    {"tensor": 2, "data": 2, "model": "bert", "bucket_mb": 0.002, "microbatches": 2, **SHARED},
    {"tensor": 2, "data": 2, "model": "mlp", "tensor_style": "column", "bucket_mb": 0.001},
    {"tensor": 2, "pipeline": 2, "optimizer": "momentum", "clip_norm": 0.5, "microbatches": 2},
    {"tensor": 2, "data": 2, "zero": 1, "optimizer": "adam", "clip_norm": 0.5, **SHARED},
    {"tensor": 2, "data": 2, "zero": 3, "bucket_mb": 0.002, "clip_norm": 0.5, "microbatches": 2},
]


PAIRS += [
    {"model": "llama", "kv_heads": 1, "tensor": 2, "clip_norm": 0.5, "microbatches": 2, **plan}
    for plan in (
        {"pipeline": 2, "schedule": "zb-h1", "optimizer": "momentum", "qk_norm": True, **SHARED},
        {"data": 2, "zero": 1, "optimizer": "adam", "recompute": "selective"},
        {"data": 2, "zero": 3, "bucket_mb": 0.002, "recompute": "full", **SHARED},
    )
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def check(run, equals_unsplit, keys):
    equals_unsplit(run(**{"layers": 2, "hidden": 16, "heads": 4, **keys}))


@pytest.mark.parametrize("keys", ALONE, ids=name_of)
def test_split_over_ranks_it_is_the_model_of_one_process(run, equals_unsplit, keys):
    check(run, equals_unsplit, keys)


@pytest.mark.parametrize("keys", PAIRS, ids=name_of)
def test_split_over_ranks_and_in_another_way_too(run, equals_unsplit, keys):
    check(run, equals_unsplit, keys)

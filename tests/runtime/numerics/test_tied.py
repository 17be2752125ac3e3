"""Weights that embedding and logits share are those of one process, wherever the two are."""

from __future__ import annotations

import pytest

LLAMA = {"model": "llama", "kv_heads": 2, "hidden": 16, "heads": 4, "tie_embeddings": True}
GPT = {"model": "gpt", "tie_embeddings": True}
ADAM = {"optimizer": "adam", "clip_norm": 0.5}
PLANS = [
    {**GPT, "microbatches": 2},
    {**GPT, "pipeline": 2, "microbatches": 4, "schedule": "zb-h1", "optimizer": "momentum"},
    {**GPT, "data": 2, "zero": 3, "bucket_mb": 0.003, "microbatches": 2},
    {**LLAMA, "pipeline": 4, "microbatches": 4, "recompute": "full"},
    {**LLAMA, "data": 2, "pipeline": 2, "microbatches": 2, "zero": 1, **ADAM},
    {**LLAMA, "data": 2, "pipeline": 2, "microbatches": 2, "zero": 2, "bucket_mb": 0.01},
    {**LLAMA, "pipeline": 2, "virtual_stages": 2, "schedule": "interleaved-1f1b"}
    | {"microbatches": 4, "data": 2, **ADAM},
]
SPLIT = [
    {**LLAMA, "tensor": 2, "pipeline": 2, "microbatches": 2, "sequence_parallel": True, **ADAM},
    {**GPT, "tensor": 2, "data": 2, "zero": 3, "heads": 4, "hidden": 16},
    {**LLAMA, "context": 2, "pipeline": 2, "microbatches": 2, "zero": 1},
]


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_the_whole_model_is_that_of_one_process(run, equals_one_process, keys):
    equals_one_process(run(**keys))


@pytest.mark.parametrize("keys", SPLIT, ids=name_of)
def test_parts_of_it_are_those_of_one_process(run, equals_unsplit, keys):
    equals_unsplit(run(**{"layers": 2, **keys}))

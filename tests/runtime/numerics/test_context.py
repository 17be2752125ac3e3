"""A sequence that is split over ranks trains the model that one process trains."""

from __future__ import annotations

from typing import Any

import pytest

RING, ULYSSES = {"context_style": "ring"}, {"context_style": "ulysses"}
ALONE = [
    {"model": model, "context": context, **style}
    for model in ("gpt", "bert")
    for context in (2, 4)
    for style in (RING, ULYSSES)
]
ALONE += [
    {"model": "llama", "context": context, "kv_heads": kv_heads, **style}
    for context, kv_heads, style in (
        (4, 2, RING | {"qk_norm": True}),
        (2, 2, ULYSSES | {"window": 3}),
        (4, 2, ULYSSES | {"qk_norm": True}),
    )
]
PAIRS = (
    [
        {"context": 2, "microbatches": 3, **RING},
        {"context": 4, "optimizer": "adam", "clip_norm": 0.5, "microbatches": 2, **RING},
        {"context": 2, "optimizer": "adam", "clip_norm": 0.5, "data": 2, **ULYSSES},
        {"context": 2, "data": 2, "zero": 1, "optimizer": "adam", "clip_norm": 0.5, **RING},
        {"context": 2, "data": 2, "zero": 3, "bucket_mb": 0.002, "microbatches": 2, **ULYSSES},
    ]
    + [
        {"context": 2, **more, **style}
        for style in (RING, ULYSSES)
        for more in (
            {"tensor": 2, "sequence_parallel": True, "microbatches": 2, "model": "bert"},
            {"pipeline": 2, "microbatches": 3, "schedule": "zb-h1", "clip_norm": 0.5},
            {"data": 2, "bucket_mb": 0.002, "microbatches": 2},
        )
    ]
    + [
        {"context": 2, "tensor": 2, **RING},
        {"context": 2, "tensor": 2, "model": "llama", "kv_heads": 1, "clip_norm": 0.5, **RING},
        {"context": 2, "tensor": 2, "model": "llama", "kv_heads": 1, "zero": 1, **ULYSSES},
        {"context": 2, "tensor": 2, "sequence_parallel": True, "optimizer": "momentum", **ULYSSES},
        {"context": 2, "pipeline": 2, "microbatches": 3, "model": "bert", **ULYSSES},
    ]
)


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def check(run, equals_unsplit, keys):
    equals_unsplit(run(**{"layers": 2, "hidden": 16, "heads": 4, **keys}))


@pytest.mark.parametrize("keys", ALONE, ids=name_of)
def test_split_sequences_train_the_model_of_one_process(run, equals_unsplit, keys):
    check(run, equals_unsplit, keys)


@pytest.mark.parametrize("keys", PAIRS, ids=name_of)
def test_split_sequences_and_split_in_another_way_too(run, equals_unsplit, keys):
    check(run, equals_unsplit, keys)

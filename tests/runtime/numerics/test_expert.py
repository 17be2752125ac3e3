"""Experts that are spread over ranks train the model that one process trains."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from simulator.prediction import predict
from simulator.program.operations import Op

TINY = {"model": "moe-gpt", "layers": 2, "hidden": 16, "heads": 4}
DROPS = {"capacity_factor": 0.7}
ROOM = {"capacity_factor": 4.0}
SHARED = {"sequence_parallel": True}
PLANS = [
    {"expert": 2, **DROPS},
    {"expert": 2, "top_k": 1, "experts": 2, "bucket_mb": 0.002},
    {"expert": 4, **DROPS, "microbatches": 2},
    {"expert": 4, **ROOM, "experts": 8, "top_k": 3},
    {"tensor": 4, **DROPS, **SHARED},
    {"expert": 2, "tensor": 2, **ROOM, **SHARED, "microbatches": 2},
    {"expert": 2, "tensor": 2, **DROPS, **SHARED, "optimizer": "adam", "clip_norm": 0.5},
    {"expert": 2, "context": 2, **ROOM, "microbatches": 2},
    {"expert": 2, "pipeline": 2, **DROPS, "microbatches": 3, "schedule": "zb-h1"},
    {"tensor": 2, "pipeline": 2, **DROPS, **SHARED, "microbatches": 2, "schedule": "zb-h1"},
    {"expert": 2, "pipeline": 2, **ROOM, "schedule": "zb-v", "virtual_stages": 2, "layers": 4,
     "microbatches": 3},
    {"expert": 2, "data": 2, **DROPS, "bucket_mb": 0.002, "microbatches": 2},
    {"expert": 2, "data": 2, **DROPS, "zero": 2, "optimizer": "adam", "clip_norm": 0.5},
    {"expert": 2, "tensor": 2, **ROOM, "zero": 3, "microbatches": 2},
    {"expert": 2, "pipeline": 2, **DROPS, "optimizer": "adam", "clip_norm": 0.5,
     "microbatches": 2},
]  # fmt: skip


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_spread_over_ranks_it_is_the_model_of_one_process(run, equals_unsplit, keys):
    ran = run(**{**TINY, **keys})
    assert (ran.measurement.moe["dropped_share"] > 0) == (keys.get("capacity_factor", 1.25) < 2)
    equals_unsplit(ran)


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_every_tensor_has_the_bytes_the_program_says(run, keys):
    ran = run(**{**TINY, **keys})
    for rank, instructions in enumerate(ran.program.ranks):
        held = ran.measurement.timeline.memory[rank].nbytes
        assert held[0] == held[-1] == sum(ran.program.resident[rank].values())
        changes = np.diff(held)
        made = [t.nbytes for i in instructions for t in i.task.allocates if t.nbytes]
        assert Counter(changes[changes > 0].tolist()) == Counter(made)
        assert Counter((-changes[changes < 0]).tolist()) == Counter(made)


# In these nothing but what ZeRO 3 gathers ahead is communicated beside a pass, so the order of all
# other changes is certain; a gather begins as soon as its thread has woken up.
@pytest.mark.parametrize(
    "keys", [k for k in PLANS if not k.keys() & {"pipeline", "sequence_parallel"}], ids=name_of
)
def test_peak_memory_is_as_predicted(run, keys):
    ran = run(**{**TINY, **keys})
    predicted = [memory.peak for memory in predict(ran.experiment).timeline.memory]
    measured = [memory.peak for memory in ran.measurement.timeline.memory]
    if keys.get("zero") == 3:
        gathered = max(
            tensor.nbytes
            for instruction in ran.program.ranks[0]
            if instruction.task.op is Op.ALL_GATHER
            for tensor in instruction.task.allocates
        )
        for found, expected in zip(measured, predicted, strict=True):
            assert expected - gathered <= found <= expected
    else:
        assert measured == predicted

"""What a step made is gone after it, without the help of the cycle collector: else memory
grows until that comes by, and every pass pays for fresh pages."""

from __future__ import annotations

import gc

import pytest
import torch

from runtime.executor.context import RankContext
from runtime.executor.executor import Executor
from runtime.executor.groups import NullGroups
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from runtime.progress import Progress
from simulator.strategies.lowering import lower

PLANS = [
    {"pipeline": 2, "schedule": "dualpipe-v", "virtual_stages": 2, "microbatches": 4},
    {"pipeline": 2, "schedule": "zb-h1", "model": "moe-gpt"},
    {"pipeline": 2, "schedule": "pipedream"},
    {"data": 2, "zero": 3, "pipeline": 1},
    {"tensor": 2, "pipeline": 1},
    {"context": 2, "pipeline": 1, "context_style": "ulysses", "recompute": "selective"},
    {"expert": 2, "pipeline": 1, "model": "moe-gpt"},
    {"pipeline": 2, "recompute": "full", "optimizer": "adam", "clip_norm": 1.0},
]


def tensors() -> int:
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: " ".join(map(str, plan.values())))
def test_a_step_leaves_nothing_behind(alone, experiment, plan):
    tiny = experiment(**plan)
    nobody = NullGroups(lambda op, size, nbytes: 0.0, torch.device("cpu"))
    rank = Rank(tiny, lower(tiny), 0, alone, Progress())
    executor = Executor(RankContext(rank, nobody))
    numbers = {i.microbatch for i in executor.instructions}
    batches = dict.fromkeys(numbers, microbatch(tiny, 0, 0, alone))
    try:
        executor.step(batches)
        gc.collect()
        gc.disable()
        executor.step(batches)
        before = tensors()
        executor.step(batches)
        assert tensors() == before
    finally:
        gc.enable()
        executor.close()

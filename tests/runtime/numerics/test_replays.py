"""Programs with collectives, executed in one process, give what their ranks gave in a real run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from runtime.models.dtypes import TORCH_DTYPE
from runtime.rank.replay import Replay

CASES: dict[str, dict[str, Any]] = {
    "all-reduce": {"data": 2, "optimizer": "adam"},
    "zero 1": {"data": 2, "zero": 1, "optimizer": "adam"},
    "zero 3": {"data": 2, "zero": 3, "horizon": 2},
    "pipeline": {"pipeline": 2, "data": 2, "microbatches": 4, "clip_norm": 0.5},
    "pipedream": {"pipeline": 2, "microbatches": 4, "schedule": "pipedream", "horizon": 2},
    "tensor": {"tensor": 2, "sequence_parallel": True},
    "ring": {"context": 2},
    "ulysses": {"context": 2, "context_style": "ulysses"},
    "experts": {"model": "moe-gpt", "expert": 2, "experts": 4},
    "server": {"data": 2, "data_style": "parameter-server", "optimizer": "momentum"},
    "local-sgd": {"data": 2, "data_style": "local-sgd", "sync_period": 2, "horizon": 4},
    "diloco": {"data": 2, "data_style": "diloco", "sync_period": 2, "horizon": 2},
    "plateau": {
        "data": 2,
        "learning_rate_schedule": "plateau",
        "plateau_patience": 0,
        "learning_rate": 4.0,
        "iterations": 5,
    },
    "gossip": {"data": 3, "data_style": "gossip", "topology": "ring", "horizon": 2},
    "fp16": {"data": 2, "dtype": "fp16", "clip_norm": 1.0, "horizon": 2},
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_parameters_are_those_of_the_run(name: str, run: Callable[..., Any]) -> None:
    """A replay agrees to rounding: only sums over two ranks are the same in any order."""
    ran = run(**{"layers": 2} | CASES[name])
    plan = ran.experiment
    again = Replay(plan, ran.program)
    losses = [
        mean
        for _ in range(plan.run.warmup + plan.run.iterations)
        for mean in again.mean_losses(again.iterate())
    ]
    tolerance = 10 * torch.finfo(TORCH_DTYPE[plan.workload.dtype]).eps
    assert losses == pytest.approx(ran.measurement.losses, rel=max(tolerance, 1e-12))
    for context, (tensors, _) in zip(again.contexts, ran.shares, strict=False):
        held = {
            layers: parameters.shard[place] if not parameters.bucket.shards else None
            for parameters in context.parameters.values()
            for layers, place in parameters.segments.items()
        }
        if any(part is None for part in held.values()):
            continue  # a part of the parameters: losses of later steps speak for them
        ours = torch.cat([held[layers].double() for layers in sorted(held)])
        theirs = torch.cat([tensor.flatten() for tensor in tensors.values()])
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()

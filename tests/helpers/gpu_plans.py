"""Plans that are run on a GPU, with one global batch each, so that all train alike."""

from __future__ import annotations

SMALL = ("workload.layers=4", "workload.hidden=64", "run.iterations=3", "run.warmup=1")
OF_TWO = (
    "parallel.pipeline=2",
    "parallel.data=2 parallel.pipeline=1",
    "parallel.data=2 parallel.pipeline=1 parallel.zero=3",
    "parallel.tensor=2 parallel.pipeline=1",
    "parallel.context=2 parallel.pipeline=1",
    "workload.model=llama workload.kv_heads=1 parallel.tensor=2 parallel.pipeline=1",
    "workload.model=moe-gpt workload.capacity_factor=2 parallel.expert=2 parallel.pipeline=1",
    "parallel.pipeline=2 parallel.recompute=full",
    "parallel.pipeline=2 parallel.microbatches=1",
)
"""Experts have slots for all tokens: which are dropped depends on the size of a microbatch."""

OF_FOUR = (
    "parallel.pipeline=4",
    "parallel.data=2 parallel.pipeline=2",
    "parallel.data=4 parallel.pipeline=1 parallel.zero=3",
    "parallel.tensor=2 parallel.pipeline=2",
)
LARGE = (
    "parallel.pipeline=1",
    "parallel.microbatches=4",
    "workload.layers=24",
    "workload.hidden=2048",
    "workload.heads=16",
    "workload.sequence=2048",
    "workload.global_batch=16",
    "workload.attention=flash",
    "workload.dtype=bf16",
    "workload.optimizer=adamw",
    "run.iterations=5",
)
"""A GPT of 1.2 G parameters, whose passes take milliseconds."""


def split(plan: str) -> list[str]:
    """The keys of a plan."""
    return [*SMALL, "workload.global_batch=16", *plan.split()]


def whole(plan: str) -> list[str]:
    """The keys of the same training on one rank."""
    model = [key for key in plan.split() if key.startswith("workload.")]
    return [*SMALL, "workload.global_batch=16", *model, "parallel.pipeline=1"]

"""Naive layer-wise model parallelism: one microbatch at a time through all stages.

Only one rank computes at any time, whatever the number of microbatches; with one stage
this is gradient accumulation.
"""

from __future__ import annotations

from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "layer-wise model parallel: one microbatch at a time through all stages"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """F0 B0 F1 B1 … on every rank."""
    return [
        step
        for microbatch in range(plan.num_microbatches)
        for step in (forward(rank, microbatch), backward(rank, microbatch))
    ]

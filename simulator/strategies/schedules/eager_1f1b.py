"""Eager 1F1B: 1F1B with twice the warm-up.

Its source is Zhuang et al. 2023, "On Optimizing the Communication of Model Parallelism"; Alpa calls
it `1f1b_overlap_friendly`.

Every hop to the end is two microbatches apart instead of one, so an activation and the
gradient that comes back for it have the time of another microbatch's passes to travel.
Makespan (m+p-1)(F+B) + 2(p-1)·p2p for messages of p2p ≤ F, B seconds, as GPipe, where
nothing hides those of 1F1B's steady state; rank r holds min(m, 2(p-r)-1) microbatches
instead of min(m, p-r). Orders are equal to those of
`torch.distributed.pipelining.ScheduleInterleaved1F1B` with one stage a rank.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.warmup_steady_cooldown import warmup_steady_cooldown
from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "1F1B with more warm-up: messages hide behind passes, for more memory"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """2(p-1-r)+1 forwards come before the first backward: the last is the first in turn."""
    microbatches = range(plan.num_microbatches)
    return warmup_steady_cooldown(
        forwards=[forward(rank, m) for m in microbatches],
        backwards=[backward(rank, m) for m in microbatches],
        warmup=2 * (plan.num_ranks - 1 - rank),
    )

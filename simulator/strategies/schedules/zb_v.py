"""ZB-V: no bubble with 1F1B's memory, on a V.

Its source is Qi et al. 2024, "Zero Bubble Pipeline Parallelism", arXiv version, section 6.

Rank r owns stages r and 2p-1-r: the first rank has both ends of the model, so the first
backward is not far from the first forward. With F = I = W and m ≥ 2p-1 no rank idles
between its first pass and its last; the makespan 2m(F+I+W) + (p-1)F counts the staggered
start (see ZB-H2). Every rank holds 2p stage activations, those of p microbatches.

Orders are equal to those of `torch.distributed.pipelining.ScheduleZBVZeroBubble`: with
fewer than 2p-1 microbatches, too, where it is the order of 2p-1 without the passes of the
others, and ranks idle.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.letters import passes_of_letters
from simulator.strategies.schedules.passes import Pass, Plan, once_a_step
from simulator.strategies.schedules.placements import two_stages_a_rank, vee

SUMMARY = "zero bubble, 1F1B's memory: two stages a rank on a V (virtual_stages = 2)"


placement, refusal, updates = vee, two_stages_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """Warm-up, steady state with and without forwards on the way down, cool-down."""
    p, r = plan.num_ranks, rank
    m = max(plan.num_microbatches, 2 * p - 1)
    return passes_of_letters(
        "F" * (2 * (p - r) - 1)
        + "fF" * r
        + "fiw" * (p - r)
        + "FIWfiw" * (m - (2 * p - 1 - r))
        + "IWfiw" * (p - 1 - r)
        + "Ii" * r
        + "IW" * (p - r)
        + "w" * r
        + "W" * r,
        plan,
        rank,
    )

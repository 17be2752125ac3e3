"""1F1B: one forward, one backward (PipeDream-flush, Narayanan et al. 2021, section 2.2.1).

Makespan and bubble are GPipe's, (m+p-1)(F+B) and (p-1)/(m+p-1), but rank r holds at most
min(m, p-r) microbatches.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.warmup_steady_cooldown import warmup_steady_cooldown
from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "1F1B: warm-up, then one forward and one backward in turn"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """p-1-r warm-up forwards, then F and B in turn, then the remaining backwards."""
    microbatches = range(plan.num_microbatches)
    return warmup_steady_cooldown(
        [forward(rank, m) for m in microbatches],
        [backward(rank, m) for m in microbatches],
        warmup=plan.num_ranks - 1 - rank,
    )

"""1F1B: one forward, one backward (PipeDream-flush, Narayanan et al. 2021, section 2.2.1).

Makespan and bubble are GPipe's, (m+p-1)(F+B) and (p-1)/(m+p-1), but rank r holds at most
min(m, p-r) microbatches.
"""

from __future__ import annotations

from simulator.strategies.schedules.passes import (
    Pass,
    Plan,
    backward,
    forward,
    loop,
    once_a_step,
    one_stage_a_rank,
)

SUMMARY = "1F1B: warm-up, then one forward and one backward in turn"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """p-1-r warm-up forwards, then F and B in turn, then the remaining backwards."""
    total = plan.num_microbatches
    warmup = min(total, plan.num_ranks - 1 - rank)
    passes = [forward(rank, m) for m in range(warmup)]
    for m in range(total - warmup):
        passes += [forward(rank, warmup + m), backward(rank, m)]
    passes += [backward(rank, m) for m in range(total - warmup, total)]
    return passes

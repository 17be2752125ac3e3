"""GPipe: all forward passes, then all backward passes (Huang et al. 2019, section 2.3).

Makespan (m+p-1)(F+B), bubble fraction (p-1)/(m+p-1); every rank holds m microbatches.
Backward passes run in the order of the forward passes, as in
`torch.distributed.pipelining.ScheduleGPipe`.
"""

from __future__ import annotations

from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "GPipe: all forward passes, then all backward passes"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """F0 … F(m-1) B0 … B(m-1)."""
    microbatches = range(plan.num_microbatches)
    return [forward(rank, m) for m in microbatches] + [backward(rank, m) for m in microbatches]

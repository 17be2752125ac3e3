"""Depth-first order of several stages a rank: microbatches go through them in rounds."""

from __future__ import annotations

from simulator.strategies.schedules.passes import Plan

Step = tuple[int, int]  # stage, microbatch


def num_rounds(plan: Plan) -> int:
    """Return the most rounds with no fewer microbatches in each than ranks, at least one."""
    return max(1, plan.num_microbatches // plan.num_ranks)


def round_size(plan: Plan) -> int:
    """Return the microbatches of a round: p where p divides m."""
    return plan.num_microbatches // num_rounds(plan)


def forward_order(plan: Plan, rank: int) -> list[Step]:
    """Return a round through the rank's first stage, its second, …; then the next round."""
    total, size = plan.num_microbatches, round_size(plan)
    return [
        (stage, microbatch)
        for start in range(0, total, size)
        for stage in range(rank, plan.num_stages, plan.num_ranks)
        for microbatch in range(start, min(start + size, total))
    ]


def backward_order(plan: Plan, rank: int) -> list[Step]:
    """Return the same from the rank's last stage to its first."""
    mirrored = forward_order(plan, plan.num_ranks - 1 - rank)
    return [(plan.num_stages - 1 - stage, microbatch) for stage, microbatch in mirrored]


def uneven_rounds(plan: Plan) -> str | None:
    """Return why rounds are not of equal size, or None; with one stage a rank they need not be."""
    total, ranks = plan.num_microbatches, plan.num_ranks
    if plan.virtual_stages == 1 or total % num_rounds(plan) == 0:
        return None
    rounds = num_rounds(plan)
    below = total - total % rounds
    above = min(below + rounds, (rounds + 1) * ranks)
    return (
        f"microbatches = {total}; allowed with pipeline = {ranks}: a multiple of the "
        f"{rounds} rounds (microbatches // pipeline); nearest: {below} or {above}"
    )

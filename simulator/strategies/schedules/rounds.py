"""Depth-first order of several stages a rank: microbatches go through them in rounds."""

from __future__ import annotations

from simulator.strategies.schedules.passes import Plan


def round_size(plan: Plan) -> int:
    """Microbatches a round: as many as ranks, more where they do not divide evenly into
    m // p rounds, all of them where they are fewer than ranks."""
    return plan.num_microbatches // max(1, plan.num_microbatches // plan.num_ranks)


def forward_order(plan: Plan, rank: int) -> list[tuple[int, int]]:
    """(stage, microbatch) of `rank`: a round through its first stage, through its second, …,
    then the next round."""
    size = round_size(plan)
    return [
        (stage, microbatch)
        for start in range(0, plan.num_microbatches, size)
        for stage in range(rank, plan.num_stages, plan.num_ranks)
        for microbatch in range(start, start + size)
    ]


def backward_order(plan: Plan, rank: int) -> list[tuple[int, int]]:
    """The same with the rank's last stage first."""
    last = plan.num_stages - 1
    mirrored = forward_order(plan, plan.num_ranks - 1 - rank)
    return [(last - stage, microbatch) for stage, microbatch in mirrored]


def uneven_rounds(plan: Plan) -> str | None:
    """Why rounds of equal size refuse `plan`, or None."""
    total, rounds = plan.num_microbatches, max(1, plan.num_microbatches // plan.num_ranks)
    if total % rounds == 0:
        return None
    fits = [
        m for m in range(total - rounds, total + rounds) if m % max(1, m // plan.num_ranks) == 0
    ]
    return (
        f"microbatches = {total} on {plan.num_ranks} pipeline ranks; allowed: a multiple of "
        f"the {rounds} rounds"
    )

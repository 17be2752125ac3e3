"""Placements of the stages of a pipeline on its ranks, and how many stages a rank has."""

from __future__ import annotations

from simulator.strategies.schedules.passes import Plan


def loop(plan: Plan) -> list[int]:
    """Return the usual placement: stage s on pipeline rank s mod p."""
    return [stage % plan.num_ranks for stage in range(plan.num_stages)]


def vee(plan: Plan) -> list[int]:
    """Return the V-shaped placement: rank r owns stages r and 2p-1-r."""
    down = list(range(plan.num_ranks))
    return down + down[::-1]


def one_stage_a_rank(plan: Plan) -> str | None:
    """Return why a schedule without virtual stages refuses `plan`, or None."""
    if plan.virtual_stages != 1:
        return f"virtual_stages = {plan.virtual_stages}; allowed: 1"
    return None


def two_stages_a_rank(plan: Plan) -> str | None:
    """Return why a V-shaped schedule refuses `plan`, or None."""
    if plan.virtual_stages != 2:
        return f"virtual_stages = {plan.virtual_stages}; allowed: 2"
    return None

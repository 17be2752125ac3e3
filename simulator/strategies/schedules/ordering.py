"""The schedule says which rank owns which stage, and in which order a rank runs its passes."""

from __future__ import annotations

from dataclasses import replace

from simulator.strategies.lowered import Lowered


def order_passes(lowered: Lowered) -> Lowered:
    """Ask the schedule for the placement of stages and the order of every pipeline rank."""
    schedule, plan = lowered.schedule, lowered.plan
    orders = [schedule.order(plan, rank) for rank in range(plan.num_ranks)]
    return replace(lowered, placement=schedule.placement(plan), orders=orders)

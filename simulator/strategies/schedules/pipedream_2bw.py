"""PipeDream-2BW: asynchronous 1F1B with gradient accumulation and two weight versions.

Weights are updated once p microbatches have been accumulated; every microbatch uses the
weights of one update before its own, on all stages alike: W(t+1) = W(t) - lr·∇f(W(t-1))
(Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training", section 3.1).
Two versions suffice because no rank has more than p microbatches in flight.
"""

from __future__ import annotations

from simulator.strategies.schedules.one_f_one_b import order
from simulator.strategies.schedules.passes import Plan, Updates
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "PipeDream-2BW: asynchronous 1F1B, an update per p microbatches, two weight versions"

placement = loop


def refusal(plan: Plan) -> str | None:
    """Refuse microbatches that are no multiple of the ranks, and several stages a rank."""
    if plan.num_microbatches % plan.num_ranks:
        return (
            f"microbatches = {plan.num_microbatches}; allowed: a multiple of the pipeline "
            f"degree, {plan.num_ranks}"
        )
    return one_stage_a_rank(plan)


def updates(plan: Plan) -> Updates:
    """After every p microbatches; forward passes use the version before the newest."""
    return Updates(every=plan.num_ranks, delay=1)


__all__ = ["SUMMARY", "order", "placement", "refusal", "updates"]

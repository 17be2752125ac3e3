"""PipeDream: 1F1B without flushes, weights updated after every backward pass.

A microbatch's backward pass uses the weights of its forward pass (weight stashing), which
are up to p-1-r versions old on rank r (Narayanan et al. 2019, "PipeDream: Generalized
Pipeline Parallelism for DNN Training", sections 3.2 and 3.3). Order and bubble of a
training step of m microbatches are 1F1B's; each microbatch is a minibatch of its own.
"""

from __future__ import annotations

from simulator.strategies.schedules.one_f_one_b import order
from simulator.strategies.schedules.passes import Plan, Updates
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "PipeDream: asynchronous 1F1B, an update per microbatch, weights stashed"

placement, refusal = loop, one_stage_a_rank


def updates(plan: Plan) -> Updates:
    """After every microbatch; forward passes use the newest weights of their stage."""
    return Updates(every=1)


__all__ = ["SUMMARY", "order", "placement", "refusal", "updates"]

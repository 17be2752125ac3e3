"""ZB-H2, also called ZB2P: no bubble, for twice the memory.

Its source is Qi et al. 2024, "Zero Bubble Pipeline Parallelism", section 2.2.

ZB-H1 with everything twice: two warm-up forwards a hop fill the wait for the first
backward, and rank r runs the halves for weights 2r microbatches late. With m ≥ 2p-1 and
W ≤ F, I no rank idles more than (p-1)(F+I-2W) between its first pass and its last, which
is nothing for F = I = W. Every rank holds min(m, 2p-1) microbatches.

With fewer than 2p-1 microbatches there is less to wait for: each rank's warm-up and lag exceed
those of ZB-H1 by no more than the m-p microbatches beyond p. For F = I = W the makespan is then
ZB-H1's, too, and with m ≤ p the orders are ZB-H1's own.

Where passes are not equal, early forwards can hold up a backward that others wait for. All ranks
then take ZB-H1's orders, if a step of those is shorter for `Plan.costs` and `Plan.p2p`: more
memory that makes a step longer is of no use.

The ranks then end as staggered as they start, (p-1)F apart, and the next step can begin
before the last one has ended if no step waits for all ranks. The makespan of one step
alone, m(F+I+W) + (p-1)·max(F, F+I-2W), counts that stagger: for F = I = W it is ZB-H1's.
"""

from __future__ import annotations

from functools import lru_cache

from simulator.strategies.schedules import zb_h1
from simulator.strategies.schedules.orders.backward_weights import with_backward_weights
from simulator.strategies.schedules.orders.longest_path import FASTER, letters_of, makespan
from simulator.strategies.schedules.orders.warmup_steady_cooldown import warmup_steady_cooldown
from simulator.strategies.schedules.passes import Pass, Plan, backward_input, forward, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "zero bubble, twice the memory of zb-h1: no rank waits between its passes"


placement, refusal, updates = loop, one_stage_a_rank, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """Return the order of two warm-up forwards a hop, or ZB-H1's where that is shorter."""
    return zb_h1.order(plan, rank) if _zb_h1_is_shorter(plan) else _two_a_hop(plan, rank)


@lru_cache(maxsize=32)
def _zb_h1_is_shorter(plan: Plan) -> bool:
    """Tell whether a step of ZB-H1's orders is shorter for the costs of the plan."""
    costs = plan.costs or ((1.0, 1.0, 1.0),) * plan.num_ranks
    one, two = (
        makespan(
            [letters_of(passes(plan, rank)) for rank in range(plan.num_ranks)], costs, plan.p2p
        )
        for passes in (zb_h1.order, _two_a_hop)
    )
    return one < two * FASTER


def _two_a_hop(plan: Plan, rank: int) -> list[Pass]:
    """Return two warm-up forwards a hop; `W` comes two microbatches late for every hop before."""
    beyond = max(plan.num_microbatches - plan.num_ranks, 0)
    hops = plan.num_ranks - 1 - rank
    microbatches = range(plan.num_microbatches)
    passes = warmup_steady_cooldown(
        forwards=[forward(rank, m) for m in microbatches],
        backwards=[backward_input(rank, m) for m in microbatches],
        warmup=hops + min(hops, beyond),
    )
    return with_backward_weights(passes, behind=rank + min(rank, beyond))

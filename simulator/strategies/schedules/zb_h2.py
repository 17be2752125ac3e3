from __future__ import annotations
from simulator.strategies.schedules.alternate import one_forward_one_backward, with_weights
from simulator.strategies.schedules.passes import Pass, Plan, backward_input, forward, loop, one_stage_a_rank
def order(plan: Plan, rank: int) -> list[Pass]:
    ms = range(plan.num_microbatches)
    return with_weights(one_forward_one_backward([forward(rank,m) for m in ms],[backward_input(rank,m) for m in ms], 2*(plan.num_ranks-1-rank)), 2*rank)

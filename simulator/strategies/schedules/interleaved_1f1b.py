"""Interleaved 1F1B (Megatron-LM, Narayanan et al. 2021, section 2.2.2).

Each rank owns v stages, p apart. Microbatches go through them in rounds of p: all of a
round through one stage, then all through the next ("depth first").

With F and B the times of one stage: makespan (vm+p-1)(F+B) for m ≥ p, a v-th of 1F1B's
bubble, and ((v-1)p + m+p-1)(F+B) for fewer microbatches. Rank r holds
min(vm, (v-1)p + 2(p-1-r) + 1) stage activations where p divides m. Messages are v times
as many.

Where p does not divide m there are m // p larger rounds (one, if m < p), which must be of
equal size, as in `torch.distributed.pipelining.ScheduleInterleaved1F1B`. Orders are equal
to torch's; Megatron-LM itself asks for a multiple of p.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.rounds import (
    backward_order,
    forward_order,
    round_size,
    uneven_rounds,
)
from simulator.strategies.schedules.orders.warmup_steady_cooldown import warmup_steady_cooldown
from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop

SUMMARY = "1F1B over several stages a rank (virtual_stages ≥ 2), depth first: a smaller bubble"


placement, updates = loop, once_a_step


def refusal(plan: Plan) -> str | None:
    """Refuse one stage a rank, and microbatches that make uneven rounds."""
    if plan.virtual_stages == 1:
        return "virtual_stages = 1; allowed: 2 or more"
    return uneven_rounds(plan)


def order(plan: Plan, rank: int) -> list[Pass]:
    """A round through all but the last stage and two forwards a hop, then 1F1B."""
    until_last_stage = (plan.virtual_stages - 1) * round_size(plan)
    return warmup_steady_cooldown(
        forwards=[forward(*step) for step in forward_order(plan, rank)],
        backwards=[backward(*step) for step in backward_order(plan, rank)],
        warmup=until_last_stage + 2 * (plan.num_ranks - 1 - rank),
    )

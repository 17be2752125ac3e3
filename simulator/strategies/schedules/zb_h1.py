"""ZB-H1, also called ZB1P: 1F1B with the backward pass split in two.

Its source is Qi et al. 2024, "Zero Bubble Pipeline Parallelism", section 2.1.

Only the half for inputs is on the way of the next rank, so 1F1B's waves of forwards and
backwards come closer, and the halves for weights fill the end: rank r runs them r
microbatches late. With m ≥ p and W ≤ F, I: makespan m(F+I+W) + (p-1)(F+I-W), which for
F = I = W is a third of 1F1B's bubble. Every rank holds min(m, p) microbatches, 1F1B's peak.

With v stages a rank the same is done to interleaved 1F1B: makespan
vm(F+I+W) + (p-1)(F+I-W) in times of one stage, vp stage activations where p divides m.
Orders are equal to those of `torch.distributed.pipelining.ScheduleInterleavedZeroBubble`,
which wants rounds of equal size for any v; with one stage a rank they make no difference,
and any m will do here.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.backward_weights import with_backward_weights
from simulator.strategies.schedules.orders.rounds import (
    backward_order,
    forward_order,
    round_size,
    uneven_rounds,
)
from simulator.strategies.schedules.orders.warmup_steady_cooldown import warmup_steady_cooldown
from simulator.strategies.schedules.passes import Pass, Plan, backward_input, forward, once_a_step
from simulator.strategies.schedules.placements import loop

SUMMARY = "zero bubble, 1F1B's memory: backward in two halves (any virtual_stages)"


placement, refusal, updates = loop, uneven_rounds, once_a_step


def order(plan: Plan, rank: int) -> list[Pass]:
    """One warm-up forward a hop as in 1F1B; `W` a microbatch late for every hop before."""
    until_last_stage = (plan.virtual_stages - 1) * round_size(plan)
    passes = warmup_steady_cooldown(
        forwards=[forward(*step) for step in forward_order(plan, rank)],
        backwards=[backward_input(*step) for step in backward_order(plan, rank)],
        warmup=until_last_stage + plan.num_ranks - 1 - rank,
    )
    return with_backward_weights(passes, behind=rank)

"""Looped breadth-first pipeline (Lamy-Poirier 2023, "Breadth-First Pipeline Parallelism").

Each rank owns v stages, p apart, and runs all microbatches through one stage before the
next: a stage's weights are needed, and its gradients complete, in one stretch, which suits
sharded data parallelism. With one stage a rank it is GPipe.

With F and B the times of one stage: makespan (vm+p-1)(F+B) for m ≥ p, and
((v-1)p + m+p-1)(F+B) for fewer microbatches; bubble fraction (p-1)/(vm+p-1). Every rank
holds vm stage activations. Backward passes run from the last microbatch to the first, as
in `torch.distributed.pipelining.ScheduleLoopedBFS`; orders are equal to torch's.
"""

from __future__ import annotations

from simulator.strategies.schedules.passes import Pass, Plan, backward, forward, once_a_step
from simulator.strategies.schedules.placements import loop

SUMMARY = "GPipe over several stages a rank (virtual_stages ≥ 1), one stage after the other"


placement, updates = loop, once_a_step


def refusal(plan: Plan) -> str | None:
    """Take every plan."""
    return None


def order(plan: Plan, rank: int) -> list[Pass]:
    """All forwards stage by stage, then exactly the reverse with backwards."""
    stages = range(rank, plan.num_stages, plan.num_ranks)
    forwards = [forward(stage, m) for stage in stages for m in range(plan.num_microbatches)]
    return forwards + [backward(step.stage, step.microbatch) for step in reversed(forwards)]

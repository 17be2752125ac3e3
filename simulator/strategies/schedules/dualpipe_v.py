"""DualPipeV: half of DualPipe on a V.

DualPipe is of the DeepSeek-V3 technical report 2024, section 3.2.1; the half is of Qi et al. 2025,
"DualPipe could be better without the Dual".

Rank r owns stages r and 2p-1-r. In the steady state a forward of one direction and a
backward of the other stand next to each other: a runtime that overlaps the pair hides the
messages inside a stage (expert parallelism) of one behind the other. Here the two run one
after the other, the forward first.

Published bubble (p-1)(F&B+B-3W), with B = I+W and F&B the time of a pair. In sequence it is
at most that with F&B = F+B, and less: for I = W ≤ F the makespan is 2m(F+I+W) + (p-1)F, no
more than the staggered start costs. Every rank holds 2p+1 stage activations. m ≥ 2p.

Orders are equal to those of `torch.distributed.pipelining.ScheduleDualPipeV`, its pairs
written as two passes.
"""

from __future__ import annotations

from simulator.strategies.schedules.orders.letters import passes_of_letters
from simulator.strategies.schedules.passes import Pass, Plan, once_a_step
from simulator.strategies.schedules.placements import two_stages_a_rank, vee

SUMMARY = "forward and backward in pairs on a V (virtual_stages = 2, microbatches ≥ 2·pipeline)"


placement, updates = vee, once_a_step


def refusal(plan: Plan) -> str | None:
    """Refuse fewer than two microbatches a rank, and other than two stages."""
    if plan.num_microbatches < 2 * plan.num_ranks:
        return (
            f"microbatches = {plan.num_microbatches}; allowed with pipeline = "
            f"{plan.num_ranks}: {2 * plan.num_ranks} or more"
        )
    return two_stages_a_rank(plan)


def order(plan: Plan, rank: int) -> list[Pass]:
    """Return the eight steps of DeepSeek's code; 5 to 8 are the cool-down.

    The second half of step 6 and all of step 7 split the backward, and the weight halves
    fill steps 7 and 8 in the order in which they became ready.
    """
    p, m, r = plan.num_ranks, plan.num_microbatches, rank
    hops = p - 1 - r
    turn = r + 1
    weights = ("wW" * turn)[turn:] + "W" * hops
    return passes_of_letters(
        "F" * (2 * hops)
        + "Ff" * turn
        + "iwf" * hops
        + "FbfB" * (m - 2 * p + turn)
        + "bfB" * hops
        + ("bB" * turn)[:turn]
        + ("iI" * turn)[turn:]
        + "".join(weight + "I" for weight in weights[:hops])
        + weights[hops:],
        plan,
        rank,
    )

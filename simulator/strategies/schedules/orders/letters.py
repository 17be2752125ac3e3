"""Schedules on V-shaped pipelines are written with one letter a pass, as papers draw them."""

from __future__ import annotations

from collections import Counter

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass, Plan


def passes_of_letters(letters: str, plan: Plan, rank: int) -> list[Pass]:
    """Return the passes of `rank`, which owns one stage on the way down and one on the way up.

    `F`, `B` (whole backward), `I` (for inputs) and `W` (for weights) are passes of the
    stage on the way down, `f`, `b`, `i`, `w` of the one on the way up. Each takes the next
    microbatch of its kind and stage; microbatches that `plan` does not have are left out.
    """
    passes = []
    count: Counter[tuple[int, Op]] = Counter()
    for letter in letters:
        op = Op(letter.upper())
        stage = rank if letter.isupper() else plan.num_stages - 1 - rank
        halves = (Op.BACKWARD_INPUT, Op.BACKWARD_WEIGHT) if op is Op.BACKWARD else (op,)
        microbatch = count[stage, halves[0]]
        count.update((stage, half) for half in halves)
        if microbatch < plan.num_microbatches:
            passes.append(Pass(op, stage, microbatch))
    return passes

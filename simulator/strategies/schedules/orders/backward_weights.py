"""Backward passes for weights, put behind those for inputs (zero bubble schedules)."""

from __future__ import annotations

from collections import deque

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass


def with_backward_weights(passes: list[Pass], behind: int) -> list[Pass]:
    """Return `passes` with the backward passes for weights put in.

    Each backward pass for inputs is followed by the one for weights of the microbatch that is
    `behind` before it; the last `behind` of them come at the end.
    """
    whole: list[Pass] = []
    waiting: deque[Pass] = deque()
    for step in passes:
        whole.append(step)
        if step.op is Op.BACKWARD_INPUT:
            waiting.append(step._replace(op=Op.BACKWARD_WEIGHT))
            if len(waiting) > behind:
                whole.append(waiting.popleft())
    return whole + list(waiting)

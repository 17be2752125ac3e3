"""What the 1F1B family shares: forward and backward passes put in turn."""

from __future__ import annotations

from collections import deque

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass


def one_forward_one_backward(
    forwards: list[Pass], backwards: list[Pass], warmup: int
) -> list[Pass]:
    """`warmup` forwards (all, if there are no more), then one forward and one backward in
    turn, then the backwards that are left.
    """
    warmup = min(warmup, len(forwards))
    steady = len(forwards) - warmup
    passes = forwards[:warmup]
    for pair in zip(forwards[warmup:], backwards[:steady], strict=True):
        passes += pair
    return passes + backwards[steady:]


def with_weights(passes: list[Pass], behind: int) -> list[Pass]:
    """`passes` with the backward passes for weights: after each one for inputs, that of the
    one `behind` before it; the last `behind` come at the end.
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

"""Forward and backward passes take turns: the pattern that the 1F1B family shares."""

from __future__ import annotations

from collections import deque

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass


def one_forward_one_backward(
    forwards: list[Pass], backwards: list[Pass], warmup: int
) -> list[Pass]:
    """Return `warmup` forwards, then forwards and backwards in turn, then the backwards left.

    Args:
        forwards: the forward passes, in their order.
        backwards: the backward passes, in their order; as many as forwards.
        warmup: how many forwards come first; all of them, if there are no more.
    """
    warmup = min(warmup, len(forwards))
    steady = len(forwards) - warmup
    passes = forwards[:warmup]
    for pair in zip(forwards[warmup:], backwards[:steady], strict=True):
        passes += pair
    return passes + backwards[steady:]


def with_weights(passes: list[Pass], behind: int) -> list[Pass]:
    """Return `passes` with the backward passes for weights put in.

    Each backward pass for inputs is followed by the one for weights of the microbatch that is
    `behind` places before it; the last `behind` of them come at the end.
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

"""Orders of passes are timed without building a program: one stage a rank.

An order is a string of operations, ``FFIWIW``; each letter takes the next microbatch of
its kind. Times are those of `simulator.engine` for the program that
`simulator.strategies.stages.messages` makes of the orders (fixed costs, nothing shared), in time
linear in the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass

StageCost = tuple[float, float, float]  # of F, I and W
FASTER = 1 - 1e-9  # a makespan is shorter if it is so by more than a rounding error


def letters_of(passes: Sequence[Pass]) -> str:
    """Return the letters of passes."""
    return "".join(step.op.value for step in passes)


def passes_of(order: str, stage: int) -> list[Pass]:
    """Return the passes that `order` stands for."""
    count = dict.fromkeys("FIW", 0)
    passes = []
    for letter in order:
        parts = "IW" if letter == "B" else letter
        passes.append(Pass(Op(letter), stage, count[parts[0]]))
        for part in parts:
            count[part] += 1
    return passes


def fits(order: str, limit: float) -> bool:
    """Tell whether an order is possible within a limit of memory.

    Every backward comes after its forward, every `W` after its `I`, and no more than
    `limit` microbatches are between the start of their `F` and the end of their `W`.
    """
    forwards = inputs = weights = 0
    for letter in order:
        if letter == "F":
            forwards += 1
        elif letter == "B" and inputs > weights:
            return False  # this microbatch's W has run, another's is due
        if letter in "IB":
            inputs += 1
        if letter in "WB":
            weights += 1
        if inputs > forwards or weights > inputs or forwards - weights > limit:
            return False
    return True


def makespan(orders: Sequence[str], costs: Sequence[StageCost], p2p: float) -> float:
    """Return when the last pass ends, or infinity if the orders wait for each other for ever.

    A message starts when its pass has ended, the one before it between the two ranks has
    arrived, and its receive is posted, which is one pass ahead: once the pass two before
    the one that needs it has ended. The sweep follows every rank as far as it gets, down
    the pipeline and up again.

    Args:
        costs: per rank.
        p2p: of every message, in the unit of `costs`.
    """
    last = len(orders) - 1
    seconds = [{"F": f, "I": i, "W": w, "B": i + w} for f, i, w in costs]
    forwards: list[list[float]] = [[] for _ in orders]  # ends, by microbatch
    inputs: list[list[float]] = [[] for _ in orders]
    from_above, from_below = [0.0] * len(orders), [0.0] * len(orders)  # last arrivals
    position, end, before = [0] * len(orders), [0.0] * len(orders), [0.0] * len(orders)
    left, sweep = sum(map(len, orders)), range(len(orders))
    while left:
        began = left
        for rank in sweep:
            order, at = orders[rank], position[rank]
            now, earlier = end[rank], before[rank]
            while at < len(order):
                letter, start = order[at], now
                if letter != "W":
                    down = letter == "F"
                    ends = forwards[rank] if down else inputs[rank]
                    if rank != (0 if down else last):
                        sent = forwards[rank - 1] if down else inputs[rank + 1]
                        if len(ends) == len(sent):
                            break
                        arrivals = from_above if down else from_below
                        posted = max(sent[len(ends)], arrivals[rank], earlier)
                        arrivals[rank] = posted + p2p
                        start = max(now, posted + p2p)
                    ends.append(start + seconds[rank][letter])
                now, earlier = start + seconds[rank][letter], now
                at += 1
            left -= at - position[rank]
            position[rank], end[rank], before[rank] = at, now, earlier
        if left == began:
            return inf
        sweep = sweep[::-1]
    return max(end)

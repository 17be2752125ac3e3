"""A zero-bubble schedule is searched for, for given costs and a memory limit.

This is in the spirit of the automatic scheduler of Qi et al. 2024, "Zero Bubble Pipeline
Parallelism", section 3.1.

Candidates are timed by `longest_path.makespan` with `Plan.costs` and `Plan.p2p`, and the
fastest wins, among equals the first:

1. the hand-made orders that keep to the memory limit, those of little memory first;
2. greedy ones: every rank takes what can run next, by `Rules` that differ in how many
   forwards come first and in which gaps a `W` may fill (the paper's heuristic chooses the
   same two things);
3. the best of these with neighbouring passes swapped wherever that is faster.

So it is never slower than a hand-made schedule within the same limit, and it is that very
schedule where no rank could finish sooner (for F = I = W, messages that take no time and
a limit of p: ZB-H1). What counts is the makespan of one step alone (see `zb_h2`).

`memory_limit` counts microbatches from the start of their `F` to the end of their `W` on a
rank. The default, 2p-1, is ZB-H2's: it removes the bubble where F = I = W. With messages
longer than a pass, or slow last stages, more is of use.

The effort is bounded in passes, not by a clock: equal plans have equal schedules on every
machine. 8 ranks and 32 microbatches take a few tenths of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from itertools import product
from math import inf
from typing import NamedTuple

from simulator.strategies.schedules import eager_1f1b, gpipe, naive, one_f_one_b, zb_h1, zb_h2
from simulator.strategies.schedules.orders.longest_path import (
    FASTER,
    StageCost,
    fits,
    letters_of,
    makespan,
    passes_of,
)
from simulator.strategies.schedules.passes import Pass, Plan, once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank

SUMMARY = "zero bubble, searched for the costs of the stages within parallel.memory_limit"

HAND_MADE = (one_f_one_b, zb_h1, eager_1f1b, zb_h2, gpipe, naive)
FILLS = (0.5, 0.0, 1.0, 0.25)  # the most useful first, here and below
WARMUPS = (  # forwards a hop, and whether there may be more
    (2.0, False), (0.0, True), (1.5, False), (2.0, True),
    (1.0, False), (1.75, False), (2.5, False), (1.25, False),
)  # fmt: skip
MOST_SCHEDULED, MOST_SWAPPED = 150_000, 300_000  # passes that steps 2 and 3 go through


class Rules(NamedTuple):
    """The rules by which a rank chooses among the passes that can run now.

    A forward while fewer than `warmup` (per rank) of them wait for their `I`; else an `I`;
    else a `W`, where nothing else can start for `fill` times its length; else, where the
    rank `exceeds` its warm-up, one more forward.
    """

    warmup: tuple[int, ...]
    exceeds: bool
    fill: float


placement, updates = loop, once_a_step


def refusal(plan: Plan) -> str | None:
    """Refuse a limit below one microbatch, and several stages a rank."""
    if plan.memory_limit is not None and not plan.memory_limit >= 1:
        return f"memory_limit = {plan.memory_limit:g}; allowed: 1 or more microbatches"
    return one_stage_a_rank(plan)


def order(plan: Plan, rank: int) -> list[Pass]:
    """Return the order that `search` found."""
    return passes_of(search(plan)[rank], rank)


@lru_cache(maxsize=32)
def search(plan: Plan) -> tuple[str, ...]:
    """Return the best orders found, one a rank, as `longest_path` writes them."""
    costs = plan.costs or ((1.0, 1.0, 1.0),) * plan.num_ranks
    limit = 2 * plan.num_ranks - 1 if plan.memory_limit is None else int(plan.memory_limit)
    least, before = 0.0, 0.0  # a rank has its work to do after a forward has come down to it
    for cost in costs:
        least = max(least, before + plan.num_microbatches * sum(cost))
        before += cost[0] + plan.p2p
    best: list[str] = []
    shortest = inf
    for orders in _candidates(plan, costs, limit):
        time = makespan(orders, costs, plan.p2p)
        if not best or time < shortest * FASTER:
            best, shortest = orders, time
        if shortest * FASTER <= least:
            return tuple(best)
    return tuple(_swapped(best, shortest, costs, plan.p2p, limit))


def _candidates(plan: Plan, costs: Sequence[StageCost], limit: int) -> Iterator[list[str]]:
    """Orders within `limit`: hand-made ones, then greedy ones, at least one of each."""
    ranks = range(plan.num_ranks)
    for schedule in HAND_MADE:
        orders = [letters_of(schedule.order(plan, rank)) for rank in ranks]
        if all(fits(order, limit) for order in orders):
            yield orders
    tried: set[Rules] = set()
    for fill, (slope, exceeds) in product(FILLS, WARMUPS):
        wanted = (round(1 + slope * (plan.num_ranks - 1 - rank)) for rank in ranks)
        warmup = tuple(min(forwards, limit, plan.num_microbatches) for forwards in wanted)
        rules = Rules(warmup, exceeds, fill)
        if rules not in tried:
            tried.add(rules)
            yield greedy(plan, costs, limit, rules)
        if len(tried) * 3 * plan.num_microbatches * plan.num_ranks >= MOST_SCHEDULED:
            return


class _Rank:
    """The state of one rank so far; times as in `longest_path.makespan`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.forwards: list[float] = []  # when each ended
        self.inputs: list[float] = []
        self.weights = 0
        self.from_above = self.from_below = 0.0  # arrival of the last message
        self.end = self.before = 0.0

    def arrival(self, sent: list[float], number: int, last: float, p2p: float) -> float:
        """Return when a message arrives, should its pass come next; infinity: unknown."""
        return max(sent[number], last, self.before) + p2p if number < len(sent) else inf

    def run(self, letter: str, start: float, seconds: float) -> float:
        self.order.append(letter)
        self.before, self.end = self.end, start + seconds
        return self.end


def greedy(plan: Plan, costs: Sequence[StageCost], limit: int, rules: Rules) -> list[str]:
    """The orders that arise when every rank follows `rules` in a pipeline of these costs."""
    ranks = [_Rank() for _ in costs]
    bottom = len(ranks) - 1
    moments = [(0.0, at) for at in range(len(ranks))]  # when to look at which rank
    while moments:
        now, at = heappop(moments)
        rank, (forward, backward, weight) = ranks[at], costs[at]
        if now < rank.end:
            continue
        done, ahead = len(rank.forwards), len(rank.forwards) - len(rank.inputs)
        warm = ahead >= rules.warmup[at]
        above = below = inf  # when the inputs of the next F and I are here
        if done < plan.num_microbatches and done - rank.weights < limit:
            above = 0.0
            if at > 0:
                sent = ranks[at - 1].forwards
                above = rank.arrival(sent, done, rank.from_above, plan.p2p)
        if warm and not rules.exceeds:
            above = inf
        if ahead:
            below = 0.0
            if at < bottom:
                sent = ranks[at + 1].inputs
                below = rank.arrival(sent, len(rank.inputs), rank.from_below, plan.p2p)
        gap = max(min(above, below) - now, 0.0)
        if above <= now and not warm:
            letter = "F"
        elif below <= now:
            letter = "I"
        elif rank.weights < len(rank.inputs) and gap >= rules.fill * weight:
            letter = "W"
        elif above <= now:
            letter = "F"
        else:
            if gap < inf:
                heappush(moments, (min(above, below), at))
            continue
        if letter == "F":
            rank.forwards.append(rank.run("F", now, forward))
            rank.from_above, neighbour = above, at + 1
        elif letter == "I":
            rank.inputs.append(rank.run("I", now, backward))
            rank.from_below, neighbour = below, at - 1
        else:
            rank.weights += 1
            rank.run("W", now, weight)
            neighbour = -1
        heappush(moments, (rank.end, at))
        if 0 <= neighbour <= bottom:
            heappush(moments, (now, neighbour))
    return ["".join(rank.order) for rank in ranks]


def _swapped(
    orders: Sequence[str], shortest: float, costs: Sequence[StageCost], p2p: float, limit: int
) -> list[str]:
    """`orders` with neighbours swapped wherever that is faster, again until nothing is."""
    best = list(orders)
    passes = sum(map(len, best))
    left, improved = MOST_SWAPPED // passes, True
    while improved:
        improved = False
        for rank, position in [(r, k) for r, order in enumerate(best) for k in range(len(order))]:
            order = best[rank]
            pair = order[position : position + 2]
            trial = order[:position] + pair[::-1] + order[position + 2 :]
            if trial == order or not fits(trial, limit):
                continue
            if left == 0:
                return best
            left -= 1
            best[rank] = trial
            time = makespan(best, costs, p2p)
            if time < shortest * FASTER:
                shortest, improved = time, True
            else:
                best[rank] = order
    return best


__all__ = ["SUMMARY", "order", "placement", "refusal", "updates"]

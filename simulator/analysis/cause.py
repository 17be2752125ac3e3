"""The places that a kind of cause lies in, and the one that names it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator import units
from simulator.analysis.cause_places import PLACES, grouped
from simulator.analysis.replay import KINDS, Mask, Replay
from simulator.program.program import Program

SHARE = 0.6
"""A place is named if it adds this share of what all of its kind adds."""

STANDS_OUT = 2.0
"""A place is named if it changed so many times as much as the rest of its kind."""

MOST_PLACES = 32
"""So many places of a level are looked at, those that differ most."""


@dataclass(frozen=True)
class Cause:
    """The seconds that one place adds to the iteration time.

    Attributes:
        place: ``compute of rank 1``, ``messages 0→1``, ``all-reduce data``, …
        kind: ``compute``, ``communication`` or ``host_gaps``.
        adds_s: seconds, the mean of what it adds before and after all others of its kind.
        change: how much longer its instructions took, a share of what was predicted; None
            where nothing was.
        each_s: the same in seconds, mean over its instructions.
    """

    place: str
    kind: str
    adds_s: float
    change: float | None
    each_s: float

    @property
    def size(self) -> float:
        """The change of its instructions, comparable within a kind."""
        return self.each_s if self.kind != "compute" or self.change is None else self.change

    def __str__(self) -> str:
        if self.adds_s * self.each_s < 0:  # what changed most is not what the step waited for
            return f"{self.place} ({units.seconds(self.adds_s, signed=True)} a step)"
        if self.change is None or abs(self.change) >= 10:
            return f"{self.place} ({units.seconds(self.each_s, signed=True)} each)"
        return f"{self.place} ({self.change:+.0%})"


def causes_of(program: Program, replay: Replay, kind: str, adds: float) -> list[Cause]:
    """Return the places of a kind of cause: the one that names it, then those that add most.

    The cause is named after the smallest place (a rank, a link, a collective) that explains most
    of what the kind adds, both alone (nothing else of its kind is measured) and by its absence
    (everything else is), and that changed more than the rest: of two ranks that are both slow,
    neither is named alone.

    Args:
        program: what was replayed.
        replay: of the predicted and the measured timeline.
        kind: one of `KINDS`.
        adds: seconds that the kind adds to the iteration time.
    """
    sign = 1.0 if adds >= 0 else -1.0
    causes: list[Cause] = []
    named: Cause | None = None
    for level in PLACES[kind]:
        found = _level(program, replay, kind, adds, grouped(program, level))
        found.sort(key=lambda entry: -sign * entry[0].adds_s)
        causes += [cause for cause, _ in found]
        if found and named is None and sign * found[0][0].adds_s >= SHARE * sign * adds:
            largest, where = found[0]
            others = _cause(replay, kind, "the rest", replay.concerned[kind] & ~where, 0.0)
            if abs(largest.size) >= STANDS_OUT * abs(others.size):
                named = largest
    assert named is not None  # the last level is everything: nothing is the rest
    causes.remove(named)
    causes.sort(key=lambda entry: -sign * entry.adds_s)
    return [named, *causes]


def _level(
    program: Program, replay: Replay, kind: str, adds: float, places: dict[str, list[int]]
) -> list[tuple[Cause, Mask]]:
    """Return the causes at places of one width, those that differ most, with their masks.

    What a place adds is the mean of two differences: it is the first of its kind to be measured,
    and the last. The kinds before this one are measured in both.
    """
    before = KINDS[: KINDS.index(kind)]
    none, all_of_it = replay.with_measured(before), replay.with_measured((*before, kind))
    predicted, measured = replay.times(kind)
    weight = {name: abs((measured - predicted)[uids]).sum() for name, uids in places.items()}
    found = []
    for name in sorted(places, key=lambda name: -weight[name])[:MOST_PLACES]:
        where = np.zeros(len(program), dtype=bool)
        where[places[name]] = True
        if len(places) > 1:
            rest = replay.concerned[kind] & ~where
            first = replay.with_measured(before, only=(kind, where)) - none
            last = all_of_it - replay.with_measured(before, only=(kind, rest))
            value = (first + last) / 2
        else:
            value = adds
        found.append((_cause(replay, kind, name, where, value), where))
    return found


def _cause(replay: Replay, kind: str, place: str, where: Mask, adds: float) -> Cause:
    predicted, measured = replay.times(kind)
    total, longer = float(predicted[where].sum()), float((measured - predicted)[where].sum())
    change = longer / total if total > 0 and kind != "host_gaps" else None
    return Cause(place, kind, adds, change, longer / max(int(where.sum()), 1))

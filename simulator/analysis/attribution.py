"""Why a measurement differs from its prediction, and where: what each cause adds.

The program is replayed with times read off the two timelines, so a cause counts with what
it adds to the iteration time, not with how much longer its instructions took.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simulator import units
from simulator.analysis.cause import Cause, causes_of
from simulator.analysis.replay import KINDS, Replay
from simulator.program.program import Program
from simulator.timeline.timeline import Timeline

LEAST = 1e-3
"""Share of the iteration time below which a difference is not named as a cause."""


@dataclass(frozen=True)
class Attribution:
    """The reason for the difference between a predicted and a measured iteration time.

    Attributes:
        seconds: what each kind of cause adds to the predicted time, on the way to the measured.
        cause: the kind with the largest part in it, in a few words.
        causes: the places of this kind, the one that is named first, then those that add most.
    """

    seconds: dict[str, float]
    cause: str
    causes: list[Cause]


def attribute(
    program: Program,
    predicted: Timeline,
    measured: Timeline,
    order: npt.NDArray[np.int64],
    difference: float,
) -> Attribution:
    """Attribute the difference between two timelines of a program to its causes.

    The program is replayed with predicted times, and then with what was measured, in turn:
    compute, communication, host gaps (between being able to start and starting), and how
    much later than on average the last of those who meet comes. ``remainder`` is what is left
    of the difference, so that the parts add up to it. The largest part that has the sign of
    the difference is the cause; `causes_of` names its place.

    Args:
        program: what both timelines are of.
        predicted: spans in the order of the program.
        measured: spans in any order.
        order: for each predicted span the index of the measured one.
        difference: measured − predicted iteration time, seconds.
    """
    replay = Replay(program, predicted, measured, order)
    adds = _parts(replay, difference)
    seconds = {f"{name}_s": value for name, value in adds.items()}
    sign = 1.0 if difference >= 0 else -1.0
    largest = max(adds, key=lambda name: sign * adds[name])
    if sign * adds[largest] <= LEAST * measured.iteration_time:
        return Attribution(seconds, "none", [])
    if largest not in KINDS:
        added = units.seconds(adds[largest], signed=True)
        late = largest == "late_in_turn"
        return Attribution(seconds, f"ranks late in turn ({added})" if late else largest, [])
    causes = causes_of(program, replay, largest, adds[largest])
    return Attribution(seconds, str(causes[0]), causes)


def _parts(replay: Replay, difference: float) -> dict[str, float]:
    """Return the seconds that each kind of cause adds, and the remainder."""
    steps = [replay.with_measured(KINDS[:count]) for count in range(len(KINDS) + 1)]
    steps.append(replay.with_measured(KINDS, lateness=True))
    names = (*KINDS, "late_in_turn")
    parts = {
        name: after - before for name, (before, after) in zip(names, pairwise(steps), strict=True)
    }
    return parts | {"remainder": difference - sum(parts.values())}

"""Why a measurement differs from its prediction, and where: what each cause adds.

The program is replayed with times read off the two timelines, so a cause counts with what
it adds to the iteration time, not with how much longer its instructions took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simulator import units
from simulator.engine.engine import Costs, simulate
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, COMPUTE_STREAM, MESSAGES, Op
from simulator.program.program import Program
from simulator.program.walk import predecessors
from simulator.timeline.timeline import Floats, Timeline

LEAST = 1e-3  # of the iteration time; what adds less is no cause
SHARE = 0.6  # of what all of a kind adds: with that much a place is named
STANDS_OUT = 2.0  # times as much longer as the rest of its kind, else the place is just large
MOST_PLACES = 32  # of a kind that are looked at, those that differ most

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cause:
    """What a place adds to the iteration time.

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
        """How much its instructions changed, comparable within a kind."""
        return self.each_s if self.kind != "compute" or self.change is None else self.change

    def __str__(self) -> str:
        if self.adds_s * self.each_s < 0:  # what changed most is not what the step waited for
            return f"{self.place} ({units.seconds(self.adds_s, signed=True)} a step)"
        if self.change is None or abs(self.change) >= 10:
            return f"{self.place} ({units.seconds(self.each_s, signed=True)} each)"
        return f"{self.place} ({self.change:+.0%})"


@dataclass(frozen=True)
class Attribution:
    """`seconds` that each kind of cause adds to the predicted iteration time to arrive at the
    measured one; the `cause` with the largest part in it (a short string); and the places
    of its kind, the one that is named first, then those that add most.
    """

    seconds: dict[str, float]
    cause: str
    causes: list[Cause]


class _Replay(Costs):
    """Costs read off timelines instead of a model; nothing shares anything."""

    def __init__(self, durations: Floats, delays: Floats):
        self.capacities: dict[str, float] = {}
        self._durations, self._delays = durations.tolist(), delays.tolist()

    def seconds(self, instruction: Instruction) -> float:
        return float(self._durations[instruction.uid])

    def delay(self, instruction: Instruction) -> float:
        return float(self._delays[instruction.uid])


def attribute(
    program: Program,
    predicted: Timeline,
    measured: Timeline,
    order: npt.NDArray[np.int64],
    difference: float,
) -> Attribution:
    """Replay the program with predicted times, then put in what was measured, in turn:
    compute, communication, host gaps (between being able to start and starting), and how
    much later than on average the last of those who meet comes (`_read`). Each entry
    is what that step adds to the iteration time, in seconds; ``remainder`` is what is left
    of the difference: the entries add up to it.

    The largest that has the sign of the difference is the cause. It is named by the
    narrowest place that has most of it, both alone (nothing else of its kind is measured)
    and by its absence (everything else is), and that changed more than the rest: two ranks
    that are both slow share the blame.

    Args:
        order: for each predicted span the index of the measured one.
        difference: measured − predicted iteration time, seconds.
    """
    waits = predecessors(program)
    columns = (measured.posted[order], measured.start[order], measured.end[order])
    mine, gaps, late = _read(program, waits, predicted.posted, predicted.start, predicted.end)
    theirs, their_gaps, their_late = _read(program, waits, *columns)
    compute = predicted.of_kind(lambda kind: kind.stream == COMPUTE_STREAM)
    everywhere = np.ones(len(program), dtype=bool)

    def replay(durations: Mask, delays: Mask, lateness: Floats = late) -> float:
        lasts = np.where(durations, theirs, mine) + lateness
        costs = _Replay(lasts, np.where(delays, their_gaps, gaps))
        return simulate(program, costs).iteration_time

    none = ~everywhere
    states = [(none, none), (compute, none), (everywhere, none), (everywhere, everywhere)]
    steps = [*(replay(*state) for state in states), replay(*states[-1], their_late)]
    names = ("compute", "communication", "host_gaps", "late_in_turn")
    adds = {
        name: after - before for name, (before, after) in zip(names, pairwise(steps), strict=True)
    }
    adds["remainder"] = difference - sum(adds.values())
    seconds = {f"{name}_s": value for name, value in adds.items()}
    sign = 1.0 if difference >= 0 else -1.0
    largest = max(adds, key=lambda name: sign * adds[name])
    if sign * adds[largest] <= LEAST * measured.iteration_time:
        return Attribution(seconds, "none", [])
    if largest == "remainder":
        return Attribution(seconds, "remainder", [])
    if largest == "late_in_turn":
        return Attribution(
            seconds, f"ranks late in turn ({units.seconds(adds[largest], signed=True)})", []
        )
    of_gaps = largest == "host_gaps"
    concerned = {"compute": compute, "communication": ~compute, "host_gaps": everywhere}[largest]
    before, after = states[names.index(largest)], steps[names.index(largest) + 1]

    def added(places: Mask) -> float:
        """As the first of its kind to be measured, and as the last; the mean."""
        durations, delays = before
        rest = concerned & ~places
        if of_gaps:
            first, last = replay(durations, places), replay(durations, rest)
        else:
            first, last = replay(durations | places, delays), replay(durations | rest, delays)
        return (first - steps[names.index(largest)] + after - last) / 2

    was, became = (gaps, their_gaps) if of_gaps else (mine, theirs)

    def cause(place: str, where: Mask, value: float) -> Cause:
        total, longer = float(was[where].sum()), float((became - was)[where].sum())
        change = longer / total if total > 0 and not of_gaps else None
        return Cause(place, largest, value, change, longer / max(int(where.sum()), 1))

    causes: list[Cause] = []
    named: Cause | None = None
    for level in PLACES[largest]:
        places = _grouped(program, level)
        weight = {name: abs((became - was)[uids]).sum() for name, uids in places.items()}
        found = []
        for name in sorted(places, key=lambda name: -weight[name])[:MOST_PLACES]:
            where = none.copy()
            where[places[name]] = True
            if len(places) > 1:
                found.append(cause(name, where, added(where)))
            else:
                found.append(cause(name, where, adds[largest]))
        found.sort(key=lambda entry: -sign * entry.adds_s)
        causes += found
        if found and named is None and sign * found[0].adds_s >= SHARE * sign * adds[largest]:
            rest = concerned.copy()
            rest[places[found[0].place]] = False
            others = cause("the rest", rest, 0.0)
            if abs(found[0].size) >= STANDS_OUT * abs(others.size):
                named = found[0]
    assert named is not None  # the last level is everything: nothing is the rest
    causes.remove(named)
    causes.sort(key=lambda entry: -sign * entry.adds_s)
    return Attribution(seconds, str(named), [named, *causes])


def _read(
    program: Program, waits: list[list[Instruction]], posted: Floats, start: Floats, end: Floats
) -> tuple[Floats, Floats, Floats]:
    """Per instruction, in seconds: how long it took (a meeting as long as for the last of its
    participants), its gap, and how late in turn its participants were: from the last of their
    posted times to their start.

    In every single iteration the latter is nothing. Of medians it is more if now one and now
    another is late: the median of the last arrival is later than the last of the median arrivals.
    """
    durations, late = end - start, np.zeros(len(program))
    for participants in program.meetings:
        members = [member.uid for member in participants]
        durations[members] = durations[members].max()
        late[members] = max(start[members].max() - posted[members].max(), 0.0)
    return durations, _gaps(waits, posted, start + durations), late


def _gaps(waits: list[list[Instruction]], posted: Floats, end: Floats) -> Floats:
    """Per instruction, seconds between its last predecessor's end and its posting. Less than
    nothing after a meeting that ended here before it did for its last participant.
    """
    ready = np.zeros(len(waits))
    for uid, before in enumerate(waits):
        if before:
            ready[uid] = max(end[other.uid] for other in before)
    return posted - ready


# Places ------------------------------------------------------------------------------

Level = Callable[[Instruction], list[str]]
"""The places of one width that an instruction belongs to."""


def _grouped(program: Program, level: Level) -> dict[str, list[int]]:
    """The instructions of every place, without places that are the same ones under two names:
    with two ranks all messages are those of either.
    """
    groups: dict[str, list[int]] = {}
    for instruction in program:
        for name in level(instruction):
            groups.setdefault(name, []).append(instruction.uid)
    times = Counter(map(tuple, groups.values()))
    return {name: uids for name, uids in groups.items() if times[tuple(uids)] == 1}


def _link(instruction: Instruction) -> list[str]:
    """One direction between two ranks, or one communicator."""
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    if task.op in MESSAGES:
        ends = (instruction.rank, task.peer)
        source, target = ends if task.op is Op.SEND else ends[::-1]
        return [f"messages {source}→{target}"]
    return [f"{_word(instruction)} of ranks {', '.join(map(str, task.group))}"]


def _traffic(instruction: Instruction) -> list[str]:
    """All messages of a rank, or all collectives of a stream."""
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    if task.op in MESSAGES:
        return [f"messages of rank {rank}" for rank in sorted((instruction.rank, task.peer))]
    return [_word(instruction)]


def _word(instruction: Instruction) -> str:
    return f"{instruction.task.op.value.lower().replace('_', '-')} {instruction.task.stream}"


def _communication(instruction: Instruction) -> list[str]:
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    return ["messages" if task.op in MESSAGES else "collectives"]


def _only(name: str, select: Callable[[Instruction], bool]) -> Level:
    return lambda instruction: [name] if select(instruction) else []


def _computes(instruction: Instruction) -> bool:
    return instruction.task.stream == COMPUTE_STREAM


PLACES: dict[str, tuple[Level, ...]] = {
    "compute": (
        lambda i: [f"compute of rank {i.rank}"] if _computes(i) else [],
        lambda i: [f"{i.task.name} on all ranks"] if _computes(i) else [],
        _only("compute of all ranks", _computes),
    ),
    "communication": (
        _link,
        _traffic,
        _communication,
        _only("communication", lambda i: i.task.op in COMMUNICATION),
    ),
    "host_gaps": (
        lambda i: [f"host time of rank {i.rank} between instructions"],
        _only("host time between instructions", lambda i: True),
    ),
}
"""From the narrowest to everything of the kind."""

"""The one timeline type: what each instruction did when, predicted or measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.experiment.roles import Role, role_among
from simulator.program.accept_queue import Decision
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task, label_of
from simulator.timeline.statistics import Statistics

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Kind(NamedTuple):
    """The attributes that all spans of one task share (see `simulator.program.task.Task`)."""

    op: Op
    name: str
    stage: int
    segment: int
    stream: Stream
    peer: int
    nbytes: int

    @classmethod
    def of(cls, task: Task) -> Kind:
        """Return the kind of the spans of a task."""
        return cls(
            task.op, task.name, task.stage, task.segment, task.stream, task.peer, task.nbytes
        )

    def label(self, microbatch: int, step: int = 0) -> str:
        """Return the short name of a span of this kind: see `label_of`."""
        return label_of(self.stage, self.name, microbatch, self.segment, step)

    def moved(self, distance: int) -> Kind:
        """Return the kind of the same task on the rank `distance` ahead, with its own partner."""
        if self.peer < 0 or distance == 0:
            return self
        return self._replace(stream=self.stream.moved(distance), peer=self.peer + distance)


class MemoryParts(NamedTuple):
    """The bytes that one rank holds at a moment, by purpose; the parts add up to all of them.

    Attributes:
        parameters: with older versions that asynchronous schedules keep.
        gradients: of parameters, from step to step.
        optimizer: its state, with master weights.
        activations: outputs of layers, what is saved for the backward pass, and the gradients
            on their way back.
        buffers: whole parameters and gradients that exist only around their collectives
            (ZeRO 2 and 3), and everything else.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    buffers: int = 0


class MemorySamples(NamedTuple):
    """The bytes that one rank holds: `nbytes[i]` from `times[i]` (seconds) on.

    Attributes:
        times: seconds, ascending.
        nbytes: bytes held from then on.
        peak_parts: what the peak consists of; None: not known.
    """

    times: Floats
    nbytes: Integers
    peak_parts: MemoryParts | None = None

    @property
    def peak(self) -> int:
        """The most bytes held at once."""
        return int(self.nbytes.max()) if self.nbytes.size else 0


@dataclass(eq=False)
class Timeline:
    """Spans of the training steps of a program, one column an attribute, all of the same length.

    Times are seconds from the start of the first step. A communication span starts when every
    participant had arrived; `posted` is when its own rank had, so ``start - posted`` is
    time spent waiting for others. For compute the two are equal.

    Attributes:
        num_ranks: ranks that have spans here.
        kinds: the distinct tasks; `kind` indexes it.
        rank, kind, microbatch: integers per span; `rank` indexes `members` (the same
            number, unless the program is folded), microbatch -1: none.
        posted, start, end: seconds per span.
        step: per span, its training step; not given: all are of the first.
        members: the global ranks.
        counts: how many ranks each of them stands for, itself included: 1, unless the program
            is folded.
        memory: per rank, in the order of `members`.
        meta: what produced it: ``source`` (predicted, measured or paced), program hash,
            the experiment, and for a measurement its iterations.
        decisions: the spans that met because of when they arrived, in order of time; `accept`
            and `request` index the spans.
        idle: spans of what had nothing to do: optimizer steps where no update was due, passes
            that got no microbatch, and requests for one by who had heard of no more. They take no
            time.
        statistics: figures over all iterations or simulated steps, where there were several.
    """

    num_ranks: int
    kinds: list[Kind]
    rank: Integers
    kind: Integers
    microbatch: Integers
    posted: Floats
    start: Floats
    end: Floats
    memory: list[MemorySamples] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    members: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    statistics: Statistics | None = None
    step: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not self.step.size:
            self.step = np.zeros(self.rank.size, dtype=np.int64)
        if not self.members:
            self.members = list(range(self.num_ranks))
        if not self.counts:
            self.counts = [1] * self.num_ranks

    @classmethod
    def of_program(
        cls, program: Program, posted: Floats, start: Floats, end: Floats, **rest: Any
    ) -> Timeline:
        """Return the timeline of a program: span i is the instruction with uid i."""
        kinds: list[Kind] = []
        kind: list[Integers] = []
        for listed in program.columns:
            kind.append(listed.task + len(kinds))
            kinds += map(Kind.of, listed.tasks)
        rank = np.repeat(np.arange(program.num_ranks), list(map(len, program.columns)))
        microbatch = [listed.microbatch for listed in program.columns]
        columns = (rank, _joined(kind), _joined(microbatch), posted, start, end)
        members, counts = program.members, program.counts
        rest |= {"step": _joined([listed.step for listed in program.columns])}
        return cls(program.num_ranks, kinds, *columns, members=members, counts=counts, **rest)

    def __len__(self) -> int:
        return int(self.rank.size)

    @property
    def horizon(self) -> int:
        """The number of training steps."""
        return int(self.step.max(initial=0)) + 1

    @property
    def roles(self) -> list[Role]:
        """The roles of all ranks, if it says whose they are: another program may not."""
        try:
            roles = [Role.from_json(role) for role in self.meta["roles"]]
            for rank in self.members:
                role_among(roles, rank)
        except (KeyError, TypeError, ValueError, IndexError):
            return []
        return roles

    @property
    def iteration_time(self) -> float:
        """The seconds from 0 to the end of the last span."""
        return float(self.end.max()) if len(self) else 0.0

    def label(self, span: int) -> str:
        """Return the short name of a span."""
        kind = self.kinds[int(self.kind[span])]
        return kind.label(int(self.microbatch[span]), int(self.step[span]))

    def labels(self) -> list[str]:
        """Return the short names of all spans."""
        return [self.label(span) for span in range(len(self))]

    def spans_of_rows(self) -> list[Integers]:
        """Return the spans of each row, in order."""
        lengths = np.bincount(self.rank, minlength=self.num_ranks)
        return np.split(np.argsort(self.rank, kind="stable"), np.cumsum(lengths)[:-1])

    def of_kind(self, select: Any) -> npt.NDArray[np.bool_]:
        """Return a mask of the spans whose kind satisfies `select(kind)`."""
        chosen = np.array([bool(select(kind)) for kind in self.kinds], dtype=bool)
        return chosen[self.kind] if len(self) else np.zeros(0, dtype=bool)

    @property
    def is_compute(self) -> npt.NDArray[np.bool_]:
        """A mask of the spans on the compute stream."""
        return self.of_kind(lambda kind: kind.stream == COMPUTE_STREAM)


def _joined(columns: list[Integers]) -> Integers:
    return np.concatenate([np.empty(0, dtype=np.int64), *columns])

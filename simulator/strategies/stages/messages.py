"""Passes become calls of templates: segments, exchanges between them, messages between stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template, argument
from simulator.program.tensors import TensorName
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.passes import Pass
from simulator.strategies.stages.pass_columns import Integers, PassColumns
from simulator.strategies.stages.stage import Stage


def expand_passes(lowered: Lowered) -> Lowered:
    """Give every rank its calls: its passes, and the messages between stages."""
    columns = [PassColumns(passes, len(lowered.ranges)) for passes in lowered.orders]
    of_rank = {rank: columns[lowered.pipeline_rank(rank)] for rank in lowered.ranks}
    incoming: dict[int, list[Integers]] = {rank: [] for rank in lowered.ranks}
    for source, stages in lowered.stages.items():
        for target, numbers in of_rank[source].sent(source, stages).items():
            incoming[target].append(numbers)
    calls = {
        rank: lower_passes(of_rank[rank], stages, incoming[rank])
        for rank, stages in lowered.stages.items()
    }
    return replace(lowered, calls=calls)


def lower_passes(
    columns: PassColumns, stages: Mapping[int, Stage], incoming: Sequence[Integers]
) -> list[Call]:
    """Return the calls of one pipeline rank, one for each pass.

    A pass becomes one compute instruction per segment, with the collectives between them.
    The receive for a pass is posted one pass ahead (double buffering), at the end of the call
    of that one: it overlaps the pass before its own, and no rank runs further ahead of its peer
    than that. Receives from one peer are posted in the order in which it sends, earlier where
    that is needed: nothing but order tells messages apart.

    Args:
        columns: the passes of the rank.
        stages: those of the rank, by index.
        incoming: of every peer the numbers of what its messages start here, in its order.
    """
    passes = columns.passes
    scripts = Scripts(stages)
    posted, begin = (column.tolist() for column in columns.posted(incoming))
    begins, following = columns.start.tolist(), columns.next.tolist()
    kinds, coming = columns.kind.tolist(), _likeness(columns, posted, begin)
    arrived: dict[int, tuple[Reference, ...]] = {}  # what a pass starts from
    sent: dict[tuple[int, int], tuple[Call, int]] = {}  # forward passes, and where they send
    known: dict[tuple[int, int, int | tuple[int, ...]], tuple[Template, list[int], int]] = {}
    calls: list[Call] = []
    of_kind = dict(zip(kinds, passes, strict=True))
    messages = {kind: scripts.messages(step) for kind, step in of_kind.items()}
    awaited = {kind: scripts.awaited(step) for kind, step in of_kind.items()}
    waited_for = {
        kind: step.op is Op.FORWARD and scripts.sends(step.stage) > 1
        for kind, step in of_kind.items()
    }

    def arrive(call: Call, number: int, since: int, until: int) -> None:
        """Note what passes start from, received in a call from its entry `number` on."""
        for other in posted[since:until]:
            count = messages[kinds[other]]
            arrived[begins[other]] = ((call, number),)
            if count > 1:
                arrived[begins[other]] = tuple([(call, number + k) for k in range(count)])
            number += count

    if first := posted[: begin[1]]:
        batch = passes[0].microbatch
        call = Call(Template(scripts.receives([passes[other] for other in first], batch)), batch)
        arrive(call, 0, 0, begin[1])
        calls.append(call)
    for position, step in enumerate(passes):
        number = begins[position]
        start = arrived.pop(number, ()) if number >= 0 else ()
        kind = kinds[position]
        if awaited[kind]:
            forward, sends = sent[step.stage, step.microbatch]
            start = (*start, *[(forward, sends + place) for place in awaited[kind]])
        since, until = begin[position + 1], begin[position + 2]
        receives = coming[since] if until == since + 1 else tuple(coming[since:until])
        key = kind, len(start), receives
        if key not in known:
            others = [passes[other] for other in posted[since:until]]
            template, script = scripts.template(step, len(start), others)
            known[key] = template, script.leaves, len(script.entries)
        template, leaves, count = known[key]
        call = Call(template, step[2], start)
        calls.append(call)
        if waited_for[kind]:
            sent[step.stage, step.microbatch] = call, count - scripts.sends(step.stage)
        if leaves:  # to a stage of this rank
            arrived[following[position]] = tuple([(call, leaf) for leaf in leaves])
        if since < until:
            arrive(call, count, since, until)
    return calls


def _likeness(columns: PassColumns, posted: Sequence[int], begin: Sequence[int]) -> list[int]:
    """Return a number for each receive, equal for those that are alike.

    Args:
        columns: the passes of a rank.
        posted: the passes whose receives are posted, in order.
        begin: where those posted before each pass begin.
    """
    which = np.array(posted, dtype=np.int64)
    caller = np.maximum(np.repeat(np.arange(len(begin) - 1), np.diff(begin)) - 1, 0)
    shift = columns.microbatch[which] - columns.microbatch[caller]
    found = (shift - shift.min(initial=0)) * (columns.kind.max(initial=0) + 1) + columns.kind[which]
    likeness: list[int] = found.tolist()
    return likeness


class Scripts:
    """The templates of the passes of a rank, each made once.

    They differ in the stage, the direction, and the receives that are posted at their end.
    """

    def __init__(self, stages: Mapping[int, Stage]) -> None:
        self._stages = stages
        self._scripts: dict[tuple[int, Op, int], Script] = {}
        self._templates: dict[tuple[int, Op, int, tuple[Pass, ...]], Template] = {}

    def template(self, step: Pass, starts: int, coming: Sequence[Pass]) -> tuple[Template, Script]:
        """Return the template of a pass, and its script.

        Args:
            step: the pass.
            starts: the number of arguments of its call: what it starts from.
            coming: the passes whose receives are posted at its end.
        """
        shifted = [
            other._replace(microbatch=other.microbatch - step.microbatch) for other in coming
        ]
        key = step.stage, step.op, starts
        if key not in self._scripts:
            self._scripts[key] = Script(step.op, self._stages[step.stage], starts)
        script = self._scripts[key]
        whole = (*key, tuple(shifted))
        if whole not in self._templates:
            self._templates[whole] = Template([*script.entries, *self.receives(shifted, 0)])
        return self._templates[whole], script

    def receives(self, coming: Sequence[Pass], microbatch: int) -> list[Entry]:
        """Return the receives for some passes, at the end of a call for a microbatch."""
        return [
            Entry(task, shift=started.microbatch - microbatch)
            for started in coming
            for task in self._stages[started.stage].receive(started.op is Op.FORWARD)
        ]

    def awaited(self, step: Pass) -> list[int]:
        """Return which messages of its forward pass a pass waits for before it frees tensors."""
        return [place for place, _ in self._stages[step.stage].sent_before(step.op)]

    def sends(self, stage: int) -> int:
        """Return how many messages a forward pass through a stage ends with."""
        return len(self._stages[stage].send(forwards=True))

    def messages(self, step: Pass) -> int:
        """Return how many messages a pass starts from, if it starts from any."""
        pieces = self._stages[step.stage].pieces
        return len(pieces.inputs if step.op is Op.FORWARD else pieces.outputs)


class Script:
    """The tasks of a pass through a stage, the same for every microbatch.

    Attributes:
        entries: each task with the communication it waits for; what the pass starts from are
            the arguments of its call.
        leaves: numbers of the communication that the next stage waits for.
    """

    def __init__(self, op: Op, stage: Stage, starts: int) -> None:
        self.entries: list[Entry] = []
        late = [name for _, name in stage.sent_before(op)]
        starts -= len(late)
        before = tuple(argument(position) for position in range(starts))
        freeing = {name: argument(starts + place) for place, name in enumerate(late)}
        names = stage.starts(op)
        arriving: dict[TensorName, tuple[int, ...]] = dict.fromkeys(names, before)
        if stage.starts_from_messages(op):
            arriving = {name: (number,) for name, number in zip(names, before, strict=True)}
        for task in _tasks(op, stage):
            waits = {number for name in task.sources for number in arriving.get(name, ())}
            waits |= {freeing[name] for name in task.frees if name in freeing}
            if task.stream == COMPUTE_STREAM:
                for name in task.sources:
                    arriving.pop(name, None)  # later compute need not wait again
            else:
                # What it only reads, others may read meanwhile.
                made = [tensor.name for tensor in task.allocates]
                for name in made or ([task.tensor] if task.tensor else []):
                    arriving[name] = (len(self.entries),)
            self.entries.append(Entry(task, tuple(sorted(waits))))
        left = {number for name in stage.ends(op) for number in arriving.get(name, ())}
        self.leaves = sorted(number for number in left if number >= 0)


def _tasks(op: Op, stage: Stage) -> Iterator[Task]:
    """Yield segments and exchanges in the order of a pass, then the message to the next stage."""
    exchanges, completed = stage.pieces.exchanges, stage.pieces.completed
    pieces = range(len(stage.pieces.spans))
    forwards = op is Op.FORWARD
    order = list(pieces if forwards else reversed(pieces))
    if op is Op.BACKWARD_WEIGHT:
        yield from (stage.compute(op, piece) for piece in order if piece not in exchanges)
        return
    following = dict(pairwise(piece for piece in order if piece not in exchanges))
    ahead = [] if forwards else [piece for piece in order if piece in stage.pieces.regathered]
    due: dict[int, list[int]] = {}  # exchanges by the piece that they come directly behind
    for exchange in (piece for piece in order if piece in exchanges):
        due.setdefault(exchange if forwards else completed[exchange], []).append(exchange)
    for piece in order:
        if piece not in exchanges:
            while ahead and stage.pieces.regathered[ahead[0]] >= following.get(piece, piece):
                # What this or the next segment needs again is gathered during this one.
                yield stage.regather(ahead.pop(0))
            if not forwards:
                yield from stage.recompute(piece)
            yield stage.compute(op, piece)
        for exchange in due.get(piece, ()):
            task = stage.exchange(exchange, forwards)
            if task is not None:
                yield task
    yield from stage.send(forwards)

"""Passes become calls of templates: segments, exchanges between them, messages between stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from simulator.program.operations import COMPUTE_STREAM, INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template, argument
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.passes import Pass
from simulator.strategies.stages.stage import Stage


def expand_passes(lowered: Lowered) -> Lowered:
    """Give every rank its calls: its passes, and the messages between stages."""
    orders = {rank: lowered.orders[lowered.pipeline_rank(rank)] for rank in lowered.ranks}
    incoming: dict[int, dict[int, list[Pass]]] = {rank: {} for rank in lowered.ranks}
    for source, stages in lowered.stages.items():
        for target, started in messages_from(source, orders[source], stages).items():
            incoming[target][source] = started
    calls = {
        rank: lower_passes(orders[rank], stages, incoming[rank])
        for rank, stages in lowered.stages.items()
    }
    return replace(lowered, calls=calls)


def lower_passes(
    passes: Sequence[Pass], stages: Mapping[int, Stage], sent: dict[int, list[Pass]]
) -> list[Call]:
    """Return the calls of one pipeline rank, one for each pass.

    A pass becomes one compute instruction per segment, with the collectives between them.
    The receive for a pass is posted one pass ahead (double buffering), at the end of the call
    of that one: it overlaps the pass before its own, and no rank runs further ahead of its peer
    than that. Receives from one peer are posted in the order in which it sends, earlier where
    that is needed: nothing but order tells messages apart.

    Args:
        passes: those of the rank, in order.
        stages: those of the rank, by index.
        sent: per peer the passes whose results it sends here, in its order.
    """
    calls: list[Call] = []
    posts = _posting_positions(passes, sent)
    scripts = Scripts(stages)
    arrived: dict[tuple[bool, int, int], list[Reference]] = {}  # what a pass starts from

    def receive(call: Call, first: int, coming: Sequence[Pass]) -> None:
        for number, started in enumerate(coming, first):
            arrived[_start(started)] = [(call, number)]

    if first := posts.get(0, []):
        call = Call(Template(scripts.receives(first, passes[0].microbatch)), passes[0].microbatch)
        receive(call, 0, first)
        calls.append(call)
    for position, step in enumerate(passes):
        start = [] if step.op is Op.BACKWARD_WEIGHT else arrived.pop(_start(step), [])
        coming = posts.get(position + 1, [])
        template, script = scripts.template(step, len(start), coming)
        call = Call(template, step.microbatch, start)
        calls.append(call)
        if script.leaves:  # to a stage of this rank
            forwards = step.op is Op.FORWARD
            beside = step.stage + 1 if forwards else step.stage - 1
            arrived[forwards, beside, step.microbatch] = [(call, n) for n in script.leaves]
        receive(call, len(script.entries), coming)
    return calls


def _start(step: Pass) -> tuple[bool, int, int]:
    return step.op is Op.FORWARD, step.stage, step.microbatch


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
            Entry(
                self._stages[started.stage].receive(started.op is Op.FORWARD),
                shift=started.microbatch - microbatch,
            )
            for started in coming
        ]


class Script:
    """The tasks of a pass through a stage, the same for every microbatch.

    Attributes:
        entries: each task with the communication it waits for; what the pass starts from are
            the arguments of its call.
        leaves: numbers of the communication that the next stage waits for.
    """

    def __init__(self, op: Op, stage: Stage, starts: int) -> None:
        self.entries: list[Entry] = []
        before = tuple(argument(position) for position in range(starts))
        arriving: dict[str, tuple[int, ...]] = dict.fromkeys(stage.starts(op), before)
        for task in _tasks(op, stage):
            waits = {number for name in task.sources for number in arriving.get(name, ())}
            if task.stream == COMPUTE_STREAM:
                for name in task.sources:
                    arriving.pop(name, None)  # later compute need not wait again
            else:
                # What it only reads, others may read meanwhile.
                for name in [tensor.name for tensor in task.allocates] or [task.tensor]:
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
            while ahead and ahead[0] >= following.get(piece, piece) - 1:
                # What this or the next segment needs again is gathered during this one.
                yield stage.regather(ahead.pop(0))
            if not forwards:
                yield from stage.recompute(piece)
            yield stage.compute(op, piece)
        for exchange in due.get(piece, ()):
            task = stage.exchange(exchange, forwards)
            if task is not None:
                yield task
    send = stage.send(forwards)
    if send is not None:
        yield send


def messages_from(
    source: int, passes: Sequence[Pass], stages: Mapping[int, Stage]
) -> dict[int, list[Pass]]:
    """Return, per target rank, the passes there that start from what `source` sends, in order.

    Args:
        source: the global rank that sends.
        passes: those of `source`, in order.
        stages: those of `source`, by index.
    """
    sent: dict[int, list[Pass]] = {}
    for step in passes:
        stage = stages[step.stage]
        if step.op is Op.FORWARD:
            target, started = stage.next_rank, Pass(Op.FORWARD, step.stage + 1, step.microbatch)
        elif step.op in INPUT_BACKWARDS:
            target = stage.previous_rank
            started = Pass(Op.BACKWARD, step.stage - 1, step.microbatch)
        else:
            continue
        if target is not None and target != source:
            sent.setdefault(target, []).append(started)
    return sent


def _posting_positions(
    passes: Sequence[Pass], sent: dict[int, list[Pass]]
) -> dict[int, list[Pass]]:
    """Return, by position in `passes`, whose receives are posted before it, peers in order."""
    position_of: dict[Pass, int] = {}
    actual: dict[Pass, Pass] = {}
    for position, step in enumerate(passes):
        if step.op is not Op.BACKWARD_WEIGHT:
            key = step if step.op is Op.FORWARD else step._replace(op=Op.BACKWARD)
            position_of[key], actual[key] = position, step
    posts: dict[int, list[Pass]] = {}
    for messages in sent.values():
        latest = len(passes)
        ordered: list[tuple[int, Pass]] = []
        for message in reversed(messages):
            if message in position_of:
                latest = min(latest, max(position_of[message] - 1, 0))
                ordered.append((latest, actual[message]))
        for position, step in reversed(ordered):
            posts.setdefault(position, []).append(step)
    return posts

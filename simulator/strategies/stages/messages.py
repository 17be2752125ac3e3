"""Passes become instructions: segments, exchanges between them, and messages between stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from simulator.program.instruction import Instruction
from simulator.program.operations import COMPUTE_STREAM, INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.passes import Pass
from simulator.strategies.stages.stage import Stage

STARTED = -1
"""The position of what a pass starts from: a message, or communication of the stage before."""


def expand_passes(lowered: Lowered) -> Lowered:
    """Give every rank its instructions: its passes, and the messages between stages."""
    orders = {rank: lowered.orders[lowered.pipeline_rank(rank)] for rank in lowered.ranks}
    incoming: dict[int, dict[int, list[Pass]]] = {rank: {} for rank in lowered.ranks}
    for source, stages in lowered.stages.items():
        for target, started in messages_from(source, orders[source], stages).items():
            incoming[target][source] = started
    lists = {
        rank: lower_passes(orders[rank], stages, incoming[rank])
        for rank, stages in lowered.stages.items()
    }
    return replace(lowered, lists=lists)


def lower_passes(
    passes: Sequence[Pass], stages: Mapping[int, Stage], sent: dict[int, list[Pass]]
) -> list[Instruction]:
    """Return the instruction list of one pipeline rank.

    A pass becomes one compute instruction per segment, with the collectives between them.
    The receive for a pass is posted one pass ahead (double buffering): it overlaps the pass
    before, and no rank runs further ahead of its peer than that. Receives from one peer are
    posted in the order in which it sends, earlier where that is needed: nothing but order
    tells messages apart.

    Args:
        passes: those of the rank, in order.
        stages: those of the rank, by index.
        sent: per peer the passes whose results it sends here, in its order.
    """
    built: list[Instruction] = []
    last: tuple[Instruction, ...] = ()  # compute, which communication behind it waits for
    posts = _posting_positions(passes, sent)
    arrived: dict[tuple[bool, int, int], list[Instruction]] = {}  # what a pass starts from
    scripts: dict[tuple[int, Op], Script] = {}
    for position, step in enumerate(passes):
        for coming in posts.get(position, ()):
            task = stages[coming.stage].receive(coming.op is Op.FORWARD)
            receive = Instruction(task, coming.microbatch, last)
            arrived[_start(coming)] = [receive]
            built.append(receive)
        stage = stages[step.stage]
        script = scripts.setdefault((step.stage, step.op), Script(step.op, stage))
        start = [] if step.op is Op.BACKWARD_WEIGHT else arrived.pop(_start(step), [])
        mine: list[Instruction] = []
        for task, waits in script.entries:
            after = [mine[place] for place in waits if place >= 0]
            if waits[:1] == (STARTED,):
                after += start
            if task.stream == COMPUTE_STREAM:
                instruction = Instruction(task, step.microbatch, after)
                last = (instruction,)
            else:
                instruction = Instruction(task, step.microbatch, dict.fromkeys((*after, *last)))
            mine.append(instruction)
        built += mine
        if script.leaves:  # to a stage of this rank
            forwards = step.op is Op.FORWARD
            beside = step.stage + 1 if forwards else step.stage - 1
            arrived[forwards, beside, step.microbatch] = [mine[p] for p in script.leaves]
    return built


def _start(step: Pass) -> tuple[bool, int, int]:
    return step.op is Op.FORWARD, step.stage, step.microbatch


class Script:
    """The tasks of a pass through a stage, the same for every microbatch.

    Attributes:
        entries: each task with the positions of the communication it waits for.
        leaves: positions of communication that the next stage waits for.
    """

    def __init__(self, op: Op, stage: Stage):
        self.entries: list[tuple[Task, tuple[int, ...]]] = []
        arriving: dict[str, int] = dict.fromkeys(stage.starts(op), STARTED)
        for task in _tasks(op, stage):
            waits = {arriving[name] for name in task.sources if name in arriving}
            if task.stream == COMPUTE_STREAM:
                for name in task.sources:
                    arriving.pop(name, None)  # later compute need not wait again
            else:
                # What it only reads, others may read meanwhile.
                for name in [tensor.name for tensor in task.allocates] or [task.tensor]:
                    arriving[name] = len(self.entries)
            self.entries.append((task, tuple(sorted(waits))))
        ends = stage.ends(op)
        self.leaves = sorted({arriving[name] for name in ends if name in arriving})


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

"""From the order of passes to instructions: segments, and the messages between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.program import Instruction, Op, Task, Tensor
from simulator.strategies.partition import Range
from simulator.strategies.schedules import Pass
from simulator.workloads import Layer

SENDING_BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_INPUT})


def activation(boundary: int) -> str:
    """The tensor that enters layer `boundary`."""
    return f"act:{boundary}"


def gradient(boundary: int) -> str:
    """The gradient with respect to `activation(boundary)`."""
    return f"grad:{boundary}"


@dataclass
class Stage:
    """One (virtual) stage as a rank of the pipeline sees it.

    `segments` are layer ranges; `previous_rank` and `next_rank` are global ranks, None at
    the ends of the model. `tasks` are made once and shared by all microbatches.
    """

    index: int
    segments: list[Range]
    previous_rank: int | None
    next_rank: int | None
    tasks: dict[tuple[str, int], Task] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return self.segments[0][0]

    @property
    def last(self) -> int:
        return self.segments[-1][1]


def lower_passes(
    rank: int,
    passes: Sequence[Pass],
    stages: dict[int, Stage],
    layers: Sequence[Layer],
    sent: dict[int, list[Pass]],
) -> list[Instruction]:
    """The instruction list of one pipeline rank.

    A pass becomes one compute instruction per segment. The receive for a pass is posted
    one pass ahead (double buffering): it overlaps the pass before, and no rank runs
    further ahead of its peer than that. Receives from one peer are posted in the order in
    which it sends, earlier where that is needed: nothing but order tells messages apart.

    Args:
        sent: per peer the passes whose results it sends to `rank`, in its order.
    """
    built: list[Instruction] = []
    last_compute: tuple[Instruction, ...] = ()
    posts = _posting_positions(rank, passes, stages, sent)
    received: dict[Pass, Instruction] = {}
    for position, step in enumerate(passes):
        for coming in posts.get(position, ()):
            receive = _receive(rank, coming, stages[coming.stage], layers, last_compute)
            received[coming] = receive
            built.append(receive)
        stage = stages[step.stage]
        waits = (received.pop(step),) if step in received else ()
        forwards = step.op is Op.FORWARD
        segments = range(len(stage.segments))
        for segment in segments if forwards else reversed(segments):
            task = _compute_task(step.op, stage, segment, layers)
            instruction = Instruction(task, step.microbatch, waits)
            built.append(instruction)
            waits = ()
        last_compute = (instruction,)
        send = _send(rank, step, stage, layers, instruction)
        if send:
            built.append(send)
    return built


def messages_from(
    source: int, passes: Sequence[Pass], stages: dict[int, Stage]
) -> dict[int, list[Pass]]:
    """Per target rank the passes there that start from what `source` sends, in its order.

    Args:
        passes, stages: of rank `source`.
    """
    sent: dict[int, list[Pass]] = {}
    for step in passes:
        stage = stages[step.stage]
        if step.op is Op.FORWARD:
            target, started = stage.next_rank, Pass(Op.FORWARD, step.stage + 1, step.microbatch)
        elif step.op in SENDING_BACKWARDS:
            target = stage.previous_rank
            started = Pass(Op.BACKWARD, step.stage - 1, step.microbatch)
        else:
            continue
        if target is not None and target != source:
            sent.setdefault(target, []).append(started)
    return sent


def _posting_positions(
    rank: int,
    passes: Sequence[Pass],
    stages: dict[int, Stage],
    sent: dict[int, list[Pass]],
) -> dict[int, list[Pass]]:
    """Before which position of `passes` each pass's receive is posted, peers in order."""
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


def _compute_task(op: Op, stage: Stage, segment: int, layers: Sequence[Layer]) -> Task:
    key = (op.value, segment)
    if key in stage.tasks:
        return stage.tasks[key]
    first, last = stage.segments[segment]
    ends = last == len(layers)
    saved = Tensor(f"saved:{first}", saved_bytes(layers, first, last))
    deferred = Tensor(f"deferred:{first}", deferred_bytes(layers, first, last))
    output = Tensor(activation(last), layers[last - 1].output_bytes)
    allocates: tuple[Tensor, ...] = ()
    frees: tuple[str, ...] = ()
    if op is Op.FORWARD:
        allocates = (saved,) if ends else (saved, output)
    if op in SENDING_BACKWARDS:
        frees = (saved.name,) if ends else (saved.name, gradient(last))
        if first:
            allocates = (Tensor(gradient(first), layers[first - 1].output_bytes),)
    keeps_input = first > 0 and layers[first].defers_input
    if op is Op.BACKWARD_INPUT:
        allocates += (deferred,)
        frees += (activation(first),) if first and not keeps_input else ()
    elif op is Op.BACKWARD:
        frees += (activation(first),) if first else ()
    elif op is Op.BACKWARD_WEIGHT:
        frees = (deferred.name, activation(first)) if keeps_input else (deferred.name,)
    task = Task(
        op=op,
        stage=stage.index,
        layers=(first, last),
        segment=segment if len(stage.segments) > 1 else -1,
        allocates=allocates,
        frees=frees,
    )
    stage.tasks[key] = task
    return task


def saved_bytes(layers: Sequence[Layer], first: int, last: int) -> int:
    """Kept by a forward pass through layers [first, last): what each layer saves, and the
    tensors between them (the input of the first is a boundary tensor of its own)."""
    inner = sum(layers[index].output_bytes for index in range(first, last - 1))
    return inner + sum(layers[index].saved_bytes for index in range(first, last))


def deferred_bytes(layers: Sequence[Layer], first: int, last: int) -> int:
    """Kept from the backward pass for inputs to the one for weights."""
    inner = sum(
        layers[index - 1].output_bytes
        for index in range(first + 1, last)
        if layers[index].defers_input
    )
    return inner + sum(layers[index].deferred_bytes for index in range(first, last))


def _receive(
    rank: int,
    step: Pass,
    stage: Stage,
    layers: Sequence[Layer],
    after: tuple[Instruction, ...],
) -> Instruction:
    """The message that the pass `step` starts from."""
    forwards = step.op is Op.FORWARD
    key = ("RECV", int(forwards))
    if key not in stage.tasks:
        peer = stage.previous_rank if forwards else stage.next_rank
        boundary = stage.first if forwards else stage.last
        name = activation(boundary) if forwards else gradient(boundary)
        nbytes = layers[boundary - 1].output_bytes
        stage.tasks[key] = Task(
            op=Op.RECV,
            stage=stage.index,
            mnemonic="RECV_F" if forwards else "RECV_B",
            stream=f"recv:{peer}",
            peer=-1 if peer is None else peer,
            tensor=name,
            nbytes=nbytes,
            allocates=(Tensor(name, nbytes),),
        )
    return Instruction(stage.tasks[key], step.microbatch, after)


def _send(
    rank: int, step: Pass, stage: Stage, layers: Sequence[Layer], producer: Instruction
) -> Instruction | None:
    """The message that hands on the result of the pass `step`, or None."""
    forwards = step.op is Op.FORWARD
    peer = stage.next_rank if forwards else stage.previous_rank
    if peer is None or peer == rank or step.op is Op.BACKWARD_WEIGHT:
        return None
    key = ("SEND", int(forwards))
    if key not in stage.tasks:
        boundary = stage.last if forwards else stage.first
        name = activation(boundary) if forwards else gradient(boundary)
        stage.tasks[key] = Task(
            op=Op.SEND,
            stage=stage.index,
            mnemonic="SEND_F" if forwards else "SEND_B",
            stream=f"send:{peer}",
            peer=peer,
            tensor=name,
            nbytes=layers[boundary - 1].output_bytes,
            frees=(name,),
        )
    return Instruction(stage.tasks[key], step.microbatch, (producer,))

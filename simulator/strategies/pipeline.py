"""From the order of passes to instructions: segments, and the messages between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.program import COMPUTE_STREAM, Instruction, Op, Task, Tensor
from simulator.strategies.partition import Range
from simulator.strategies.schedules import Pass
from simulator.workloads import Layer

FORWARDS = frozenset({Op.FORWARD})


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
    the ends of the model.
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
    rank: int, passes: Sequence[Pass], stages: dict[int, Stage], layers: Sequence[Layer]
) -> list[Instruction]:
    """The instruction list of one pipeline rank.

    A pass becomes one compute instruction per segment. The receive for a pass is posted
    one pass ahead (double buffering): it overlaps the pass before, and no rank runs
    further ahead of its peer than that.
    """
    built: list[Instruction] = []
    receive = _receive(rank, passes[0], stages, layers, ()) if passes else None
    if receive:
        built.append(receive)
    for position, step in enumerate(passes):
        coming = None
        if position + 1 < len(passes):
            coming = _receive(rank, passes[position + 1], stages, layers, _last_compute(built))
            if coming:
                built.append(coming)
        stage = stages[step.stage]
        segments = range(len(stage.segments))
        waits: list[Instruction] = [receive] if receive else []
        for segment in segments if step.op in FORWARDS else reversed(segments):
            task = _compute_task(step.op, stage, segment, layers)
            built.append(Instruction(task, step.microbatch, waits))
            waits = []
        send = _send(rank, step, stage, layers, built[-1])
        if send:
            built.append(send)
        receive = coming
    return built


def _last_compute(built: list[Instruction]) -> list[Instruction]:
    return next(([i] for i in reversed(built) if i.task.stream == COMPUTE_STREAM), [])


def _compute_task(op: Op, stage: Stage, segment: int, layers: Sequence[Layer]) -> Task:
    key = (op.value, segment)
    if key in stage.tasks:
        return stage.tasks[key]
    first, last = stage.segments[segment]
    saved = Tensor(f"saved:{first}", saved_bytes(layers, first, last))
    output = Tensor(activation(last), layers[last - 1].output_bytes)
    needs_input_gradient = first > 0
    if op is Op.FORWARD:
        allocates: tuple[Tensor, ...] = (saved, output) if last < len(layers) else (saved,)
        frees: tuple[str, ...] = ()
    else:
        allocates = ()
        if needs_input_gradient:
            allocates = (Tensor(gradient(first), layers[first - 1].output_bytes),)
        frees = (saved.name,)
        if needs_input_gradient:
            frees += (activation(first),)
        if last < len(layers):
            frees += (gradient(last),)
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


def _receive(
    rank: int,
    step: Pass,
    stages: dict[int, Stage],
    layers: Sequence[Layer],
    after: Sequence[Instruction],
) -> Instruction | None:
    """The message that the pass `step` starts from, or None where its rank has it."""
    stage = stages[step.stage]
    if step.op in FORWARDS:
        peer, boundary, name, letter = (
            stage.previous_rank, stage.first, activation(stage.first), "F",
        )  # fmt: skip
    else:
        peer, boundary, name, letter = stage.next_rank, stage.last, gradient(stage.last), "B"
    if peer is None or peer == rank:
        return None
    key = ("RECV", 0 if letter == "F" else 1)
    if key not in stage.tasks:
        nbytes = layers[boundary - 1].output_bytes
        stage.tasks[key] = Task(
            op=Op.RECV,
            stage=stage.index,
            mnemonic=f"RECV_{letter}",
            stream=f"recv:{peer}",
            peer=peer,
            tensor=name,
            nbytes=nbytes,
            allocates=(Tensor(name, nbytes),),
        )
    return Instruction(stage.tasks[key], step.microbatch, after)


def _send(
    rank: int, step: Pass, stage: Stage, layers: Sequence[Layer], producer: Instruction
) -> Instruction | None:
    """The message that hands on the result of the pass `step`, or None."""
    if step.op in FORWARDS:
        peer, boundary, name, letter = (
            stage.next_rank, stage.last, activation(stage.last), "F",
        )  # fmt: skip
    else:
        peer, boundary, name, letter = (
            stage.previous_rank, stage.first, gradient(stage.first), "B",
        )  # fmt: skip
    if peer is None or peer == rank:
        return None
    key = ("SEND", 0 if letter == "F" else 1)
    if key not in stage.tasks:
        stage.tasks[key] = Task(
            op=Op.SEND,
            stage=stage.index,
            mnemonic=f"SEND_{letter}",
            stream=f"send:{peer}",
            peer=peer,
            tensor=name,
            nbytes=layers[boundary - 1].output_bytes,
            frees=(name,),
        )
    return Instruction(stage.tasks[key], step.microbatch, (producer,))

"""Refuse a program that would hang or leak before anything is started."""

from __future__ import annotations

from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, COMPUTE_STREAM, Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.program.tensors import tensor_key

Key = tuple[str, int]
"""A tensor of a rank: see `tensor_key`."""

Clock = dict[str, int]
"""Per stream the index of the last instruction that has ended."""


def check_program(program: Program) -> None:
    """Check that `program` can run to its end and gives back all it allocates.

    Raises:
        ValueError: a message without a partner, members of a group that issue collectives
            in different orders, a cycle of waits (deadlock), a tensor freed twice, never, or
            while a communication may still read it, or one that is read before it surely
            exists. The message names ranks and instructions.
    """
    _check_streams(program)
    _check_deadlock(program)
    for instructions in program.ranks:
        _check_tensors(instructions)


def predecessors(program: Program) -> list[list[Instruction]]:
    """What each instruction waits for on its own rank: its stream and its `after`."""
    waits: list[list[Instruction]] = []
    for instructions in program.ranks:
        last: dict[str, Instruction] = {}
        for instruction in instructions:
            before = list(instruction.after)
            stream = instruction.task.stream
            if stream in last:
                before.append(last[stream])
            last[stream] = instruction
            waits.append(before)
    return waits


def _check_deadlock(program: Program) -> None:
    """Follow every stream as far as it gets, without times: all must get to their ends."""
    for instructions in program.ranks:
        for instruction in instructions:
            for other in instruction.after:
                if other.index >= instruction.index or instructions[other.index] is not other:
                    raise ValueError(
                        f"rank {instruction.rank}: {instruction.label} waits for {other.label}, "
                        f"which is not earlier in the list of this rank"
                    )
    meeting = [-1] * len(program)
    for number, participants in enumerate(program.meetings):
        for member in participants:
            meeting[member.uid] = number
    absent = [len(participants) for participants in program.meetings]
    done = [False] * len(program)
    waiting: dict[int, list[list[Instruction]]] = {}  # reversed streams, by what they wait for
    stream_of: dict[int, list[Instruction]] = {}
    todo: list[list[Instruction]] = []
    for instructions in program.ranks:
        streams: dict[str, list[Instruction]] = {}
        for instruction in reversed(instructions):
            stream = streams.setdefault(instruction.task.stream, [])
            stream.append(instruction)
            if meeting[instruction.uid] >= 0:
                stream_of[instruction.uid] = stream
        todo += streams.values()
    while todo:
        stream = todo.pop()
        while stream:
            instruction = stream[-1]
            uid = instruction.uid
            blocked = False
            for other in instruction.after:
                if not done[other.uid]:
                    waiting.setdefault(other.uid, []).append(stream)
                    blocked = True
                    break
            if blocked:
                break
            number = meeting[uid]
            if number < 0:
                stream.pop()
                done[uid] = True
                if uid in waiting:
                    todo += waiting.pop(uid)
                continue
            absent[number] -= 1
            if absent[number]:
                break  # the last participant to come takes this stream further
            for member in program.meetings[number]:
                theirs = stream_of[member.uid]
                theirs.pop()
                done[member.uid] = True
                if theirs is not stream:
                    todo.append(theirs)
                if member.uid in waiting:
                    todo += waiting.pop(member.uid)
    if not all(done):
        stuck: dict[int, Instruction] = {}
        for instruction in program:
            if not done[instruction.uid]:
                stuck.setdefault(instruction.rank, instruction)
        where = "; ".join(f"rank {rank} waits in {i.label}" for rank, i in stuck.items())
        raise ValueError(f"deadlock: {where}")


def _check_tensors(instructions: list[Instruction]) -> None:
    """Follow every tensor of one rank, in list order (an order the rank can execute), and by
    what surely has ended: streams run beside each other.
    """
    held: dict[Key, Instruction] = {}
    reading: dict[Key, list[Instruction]] = {}  # communication, which goes on beside compute
    wanted: dict[Key, Instruction] = {}  # read, and not made up to here
    made: set[Key] = set()
    order = Order(instructions)
    for instruction in instructions:
        task, microbatch = instruction.task, instruction.microbatch
        for name in task.sources or reads(task):
            key = tensor_key(name, microbatch)
            owner = held.get(key)
            if owner is None:
                if key in made:
                    raise ValueError(
                        f"rank {instruction.rank}: {instruction.label} reads {_tensor(key)}: "
                        f"{_history(instructions, instruction, key)}"
                    )
                wanted.setdefault(key, instruction)
                continue
            if not order.holds(owner, instruction):
                raise ValueError(
                    f"rank {instruction.rank}: {instruction.label} reads {_tensor(key)} and does "
                    f"not wait for {owner.label}, which makes it"
                )
            if task.stream != COMPUTE_STREAM:
                reading.setdefault(key, []).append(instruction)
        for tensor in task.allocates:
            key = tensor_key(tensor.name, microbatch)
            if key in held:
                raise ValueError(
                    f"rank {instruction.rank}: {instruction.label} allocates {_tensor(key)}, "
                    f"which {held[key].label} already holds"
                )
            if key in wanted:
                raise ValueError(
                    f"rank {instruction.rank}: {wanted[key].label} reads {_tensor(key)}, which "
                    f"{instruction.label} makes later"
                )
            held[key] = instruction
            made.add(key)
        for name in task.frees:
            key = tensor_key(name, microbatch)
            if held.pop(key, None) is None:
                raise ValueError(
                    f"rank {instruction.rank}: {instruction.label} frees {_tensor(key)}: "
                    f"{_history(instructions, instruction, key)}"
                )
            for reader in reading.pop(key, ()):
                if reader is not instruction and not order.holds(reader, instruction):
                    raise ValueError(
                        f"rank {instruction.rank}: {instruction.label} frees {_tensor(key)} and "
                        f"does not wait for {reader.label}, which reads it"
                    )
    for key, owner in held.items():
        raise ValueError(
            f"rank {owner.rank}: {owner.label} allocates {_tensor(key)}, which is never freed"
        )


def reads(task: Task) -> tuple[str, ...]:
    """Names of what it reads, where it has no `sources`: what it sends or reduces in place."""
    return () if task.stream == COMPUTE_STREAM or task.op is Op.RECV else (task.tensor,)


class Order:
    """Which instructions of one rank surely have ended when a later one of its list starts."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self._instructions = instructions
        self._clocks: list[Clock] = []

    def holds(self, first: Instruction, second: Instruction) -> bool:
        """Whether `first`, listed earlier, has ended when `second` starts. Communication waits
        for all compute listed before it (`_check_streams`).
        """
        stream = first.task.stream
        if stream in (COMPUTE_STREAM, second.task.stream) or first in second.after:
            return True
        self._clocks = self._clocks or clocks(self._instructions)
        return self._clocks[second.index].get(stream, -1) >= first.index


def clocks(instructions: list[Instruction]) -> list[Clock]:
    """What has ended on the communication streams when each instruction starts: vector clocks
    (Mattern 1989, "Virtual Time and Global States of Distributed Systems").
    """
    found: list[Clock] = []
    ended: dict[str, Clock] = {}  # by stream, when its last instruction so far has ended
    for index, instruction in enumerate(instructions):
        stream = instruction.task.stream
        clock = dict(ended.get(stream, {}))
        if stream != COMPUTE_STREAM:
            _join(clock, ended.get(COMPUTE_STREAM, {}))
        for other in instruction.after:
            if other.task.stream != COMPUTE_STREAM:
                _join(clock, found[other.index])
                _join(clock, {other.task.stream: other.index})
        found.append(clock)
        ended[stream] = clock if stream == COMPUTE_STREAM else clock | {stream: index}
    return found


def _join(clock: Clock, other: Clock) -> None:
    for stream, index in other.items():
        if index > clock.get(stream, -1):
            clock[stream] = index


def _tensor(key: tuple[str, int]) -> str:
    name, microbatch = key
    return name if microbatch < 0 else f"{name} of microbatch {microbatch}"


def _history(instructions: list[Instruction], until: Instruction, key: tuple[str, int]) -> str:
    """Why `key` is not held when `until` frees it."""
    for earlier in reversed(instructions[: until.index]):
        if key in [tensor_key(name, earlier.microbatch) for name in earlier.task.frees]:
            return f"{earlier.label} already freed it"
    return "never made"


def _check_streams(program: Program) -> None:
    """Communication has streams of its own, and the order of the list is the host's.

    A rank reaches a communication instruction when the compute before it in the list has
    ended; the instruction must say so itself, or the list promises what no host can do.
    """
    for instructions in program.ranks:
        compute: Instruction | None = None
        for instruction in instructions:
            communicates = instruction.task.op in COMMUNICATION
            if communicates == (instruction.task.stream == COMPUTE_STREAM):
                raise ValueError(f"{instruction!r} is queued on stream {instruction.task.stream!r}")
            if not communicates:
                compute = instruction
            elif compute is not None and compute not in instruction.after:
                raise ValueError(
                    f"{instruction!r} is listed behind {compute.label} and does not wait for it"
                )

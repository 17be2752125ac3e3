"""Tensors that are read before they exist, freed while they are read, or never freed."""

from __future__ import annotations

from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.program.tensors import TensorKey, TensorName, tensor_key
from simulator.program.vector_clocks import Order


def check_tensors(instructions: list[Instruction]) -> None:
    """Check that every tensor of one rank is made before it is read and freed once after it.

    The list is an order in which the rank can execute its instructions. Streams run beside each
    other, so a reader on another stream must also wait for the maker, and the instruction that
    frees a tensor for those who read it.

    Raises:
        ProgramError: a tensor is read, allocated or freed at the wrong time, or never freed.
    """
    held: dict[TensorKey, Instruction] = {}
    reading: dict[TensorKey, list[Instruction]] = {}  # communication, which goes on beside compute
    wanted: dict[TensorKey, Instruction] = {}  # read, and not made up to here
    made: set[TensorKey] = set()
    order = Order(instructions)
    for instruction in instructions:
        task, batch = instruction.task, instruction.batch
        for name in reads_of(task):
            key = tensor_key(name, batch)
            owner = held.get(key)
            if owner is None:
                if key in made:
                    raise ProgramError(
                        f"rank {instruction.rank}: {instruction.label} reads {_tensor(key)}: "
                        f"{_history(instructions, instruction, key)}"
                    )
                wanted.setdefault(key, instruction)
                continue
            if not order.holds(owner, instruction):
                raise ProgramError(
                    f"rank {instruction.rank}: {instruction.label} reads {_tensor(key)} and does "
                    f"not wait for {owner.label}, which makes it"
                )
            if task.stream != COMPUTE_STREAM:
                reading.setdefault(key, []).append(instruction)
        for tensor in task.allocates:
            key = tensor_key(tensor.name, batch)
            if key in held:
                raise ProgramError(
                    f"rank {instruction.rank}: {instruction.label} allocates {_tensor(key)}, "
                    f"which {held[key].label} already holds"
                )
            if key in wanted:
                raise ProgramError(
                    f"rank {instruction.rank}: {wanted[key].label} reads {_tensor(key)}, which "
                    f"{instruction.label} makes later"
                )
            held[key] = instruction
            made.add(key)
        for name in task.frees:
            key = tensor_key(name, batch)
            if held.pop(key, None) is None:
                raise ProgramError(
                    f"rank {instruction.rank}: {instruction.label} frees {_tensor(key)}: "
                    f"{_history(instructions, instruction, key)}"
                )
            for reader in reading.pop(key, ()):
                if reader is not instruction and not order.holds(reader, instruction):
                    raise ProgramError(
                        f"rank {instruction.rank}: {instruction.label} frees {_tensor(key)} and "
                        f"does not wait for {reader.label}, which reads it"
                    )
    for key, owner in held.items():
        raise ProgramError(
            f"rank {owner.rank}: {owner.label} allocates {_tensor(key)}, which is never freed"
        )


def reads_of(task: Task) -> tuple[TensorName, ...]:
    """Return what a task reads: without `sources`, what it sends or reduces in place."""
    if task.sources or task.stream == COMPUTE_STREAM or task.op in (Op.RECV, Op.ACCEPT):
        return task.sources
    return () if task.tensor is None else (task.tensor,)


def _tensor(key: TensorKey) -> str:
    name, (step, microbatch) = key
    text = str(name) if microbatch < 0 else f"{name} of microbatch {microbatch}"
    return f"{text} of step {step}" if step > 0 else text


def _history(instructions: list[Instruction], until: Instruction, key: TensorKey) -> str:
    """Tell why `key` is not held when `until` reads or frees it."""
    for earlier in reversed(instructions[: until.index]):
        if key in [tensor_key(name, earlier.batch) for name in earlier.task.frees]:
            return f"{earlier.label} already freed it"
    return "never made"

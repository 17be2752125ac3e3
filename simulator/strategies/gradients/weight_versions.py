"""Forward passes use different weights where these change while microbatches are in flight.

A backward pass needs the weights of its forward pass, so those are kept until then (*weight
stashing*, Narayanan et al. 2019, "PipeDream", section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from simulator.program.instruction import Instruction
from simulator.program.operations import FORWARDS, LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.tensors import Tensor
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.passes import Updates


def stash_weights(lowered: Lowered) -> Lowered:
    """Name the weights that every forward pass uses, and stash those still needed."""
    updates = lowered.schedule.updates(lowered.plan)

    def stash(rank: int, instructions: list[Instruction]) -> list[Instruction]:
        sizes = {
            index: nbytes
            for index in lowered.stages[rank]
            if (nbytes := lowered.parameter_bytes(index))
        }
        used = versions_used(instructions, sizes, updates)
        return with_versions(instructions, sizes, used)

    return lowered.with_lists(stash)


def versions_used(
    instructions: Sequence[Instruction], sizes: Mapping[int, int], updates: Updates
) -> dict[tuple[int, int], int]:
    """Return the version of the weights by (stage, microbatch): updates of this step before it."""
    done = dict.fromkeys(sizes, 0)
    used: dict[tuple[int, int], int] = {}
    for instruction in instructions:
        task, stage = instruction.task, instruction.task.stage
        if task.op is Op.OPTIMIZER_STEP:
            done[stage] += 1
        elif task.op is Op.FORWARD and stage in sizes:
            newest, update = done[stage], instruction.microbatch // updates.every
            version = newest if updates.delay is None else max(update - updates.delay, 0)
            used.setdefault((stage, instruction.microbatch), min(version, newest))
    return used


def with_versions(
    instructions: list[Instruction],
    sizes: Mapping[int, int],
    used: Mapping[tuple[int, int], int],
) -> list[Instruction]:
    """Return `instructions` with versions, and with the stashes of those still needed.

    The stash of version v is held from the update that supersedes it to the end of the
    last backward pass that uses it.

    Args:
        instructions: those of a rank, with its optimizer steps; changed in place.
        sizes: bytes of the weights, by stage.
        used: see `versions_used`.
    """
    last_use: dict[tuple[int, int], Instruction] = {}
    position = {instruction: number for number, instruction in enumerate(instructions)}
    for instruction in instructions:
        key = (instruction.task.stage, instruction.microbatch)
        if instruction.task.op in LAST_BACKWARDS and key in used:
            last_use[instruction.task.stage, used[key]] = instruction
    tasks: dict[tuple[int, int], Task] = {}
    for instruction in instructions:
        task, stage = instruction.task, instruction.task.stage
        if task.op in FORWARDS and (stage, instruction.microbatch) in used:
            version = used[stage, instruction.microbatch]
            if (id(task), version) not in tasks:
                tasks[id(task), version] = replace(task, version=version)
            instruction.task = tasks[id(task), version]
        elif task.op is Op.OPTIMIZER_STEP:
            user = last_use.get((stage, task.version))
            if user is not None and position[user] > position[instruction]:
                name = f"stash:{task.layers[0]}@{task.version}"
                instruction.task = replace(task, allocates=(Tensor(name, sizes[stage]),))
                user.task = replace(user.task, frees=(*user.task.frees, name))
    return instructions

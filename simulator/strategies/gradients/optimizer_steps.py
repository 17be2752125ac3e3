"""When gradients are summed over replicas and weights are updated, and which weights a
forward pass uses.

Synchronous schedules update once, at the end of the step. Asynchronous ones update after
every `every` microbatches while others are in flight; those keep the weights they started
with (*weight stashing*, Narayanan et al. 2019, "PipeDream", section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, FORWARDS, LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.tensors import Tensor
from simulator.strategies.schedules.registry import Updates
from simulator.workloads.layer import Layer


def insert_updates(
    instructions: list[Instruction],
    owned: Sequence[tuple[int, int, int]],
    layers: Sequence[Layer],
    value_bytes: int,
    updates: Updates,
    num_microbatches: int,
    clip_group: tuple[int, ...] = (),
) -> list[Instruction]:
    """Insert the optimizer steps of each owned stage (index, first layer, last layer).

    The steps of a step that updates once come last; others follow the backward pass that
    completes their gradient. A step waits for the collectives over its gradient.

    Args:
        clip_group: the ranks that hold the parts of one model, if its gradient is clipped
            (synchronous schedules only); empty: it is not.
    """
    once = updates.every >= num_microbatches
    ranges = {index: (first, last) for index, first, last in owned}
    sizes = {
        index: sum(layer.parameters for layer in layers[first:last]) * value_bytes
        for index, (first, last) in ranges.items()
    }
    remaining = _backwards_per_group(instructions, updates.every)
    done = dict.fromkeys(ranges, 0)
    used: dict[tuple[int, int], int] = {}  # (stage, microbatch) → version of the weights
    collectives: dict[int, list[Instruction]] = {index: [] for index in ranges}
    built: list[Instruction] = []
    at_end: list[Instruction] = []
    due: list[int] = []
    for position, instruction in enumerate(instructions):
        task, stage = instruction.task, instruction.task.stage
        built.append(instruction)
        if not sizes[stage]:
            continue
        if task.op is Op.FORWARD:
            group = instruction.microbatch // updates.every
            newest = done[stage]
            version = newest if updates.delay is None else max(group - updates.delay, 0)
            used.setdefault((stage, instruction.microbatch), min(version, newest))
        elif task.tensor.startswith("gradients:"):
            collectives[stage].append(instruction)
        elif task.op in LAST_BACKWARDS:
            remaining[stage, instruction.microbatch // updates.every] -= 1
            if remaining[stage, instruction.microbatch // updates.every] == 0:
                due.append(stage)
        if position + 1 < len(instructions) and instructions[position + 1].task.op in COMMUNICATION:
            continue  # the collectives over this gradient come first, and nobody waits for a step
        for stage in due:
            group = done[stage]
            step = Instruction(
                Task(op=Op.OPTIMIZER_STEP, stage=stage, layers=ranges[stage], version=group),
                -1 if once else min((group + 1) * updates.every, num_microbatches) - 1,
                collectives[stage],
            )
            (at_end if once else built).append(step)
            done[stage] += 1
            collectives[stage] = []
        due = []
    built += _clipped(at_end, clip_group) if clip_group else at_end
    return built if once else _with_versions(built, ranges, sizes, used)


def _clipped(steps: list[Instruction], group: tuple[int, ...]) -> list[Instruction]:
    """Before `steps`, the norm of the gradient over the whole model: of the parts of each
    stage, then summed over `group` (Pascanu et al. 2013, section 3.2).
    """
    norms = [
        Instruction(
            Task(op=Op.GRADIENT_NORM, stage=step.task.stage, layers=step.task.layers),
            -1,
            step.after,
        )
        for step in steps
    ]
    if len(group) == 1:
        return norms + steps
    task = Task(
        op=Op.ALL_REDUCE,
        stage=norms[-1].task.stage,
        mnemonic="REDUCE_NORM",
        stream="model",
        group=group,
        tensor="norm",
        nbytes=8,
    )
    total = Instruction(task, -1, norms[-1:])
    for step in steps:
        step.after = (*step.after, total)
    return [*norms, total, *steps]


def _backwards_per_group(
    instructions: Sequence[Instruction], every: int
) -> dict[tuple[int, int], int]:
    """How many last backward instructions each (stage, update) waits for."""
    counts: dict[tuple[int, int], int] = {}
    for instruction in instructions:
        if instruction.task.op in LAST_BACKWARDS:
            key = (instruction.task.stage, instruction.microbatch // every)
            counts[key] = counts.get(key, 0) + 1
    return counts


def _with_versions(
    instructions: list[Instruction],
    ranges: dict[int, tuple[int, int]],
    sizes: dict[int, int],
    used: dict[tuple[int, int], int],
) -> list[Instruction]:
    """Name the weights each forward pass uses, and stash those still needed at an update.

    The stash of version v is held from the update that supersedes it to the end of the
    last backward pass that uses it.
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
                name = f"stash:{ranges[stage][0]}@{task.version}"
                instruction.task = replace(task, allocates=(Tensor(name, sizes[stage]),))
                user.task = replace(user.task, frees=(*user.task.frees, name))
    return instructions

"""When weights are updated: the optimizer steps of every stage.

Synchronous schedules update once, at the end of the step. Asynchronous ones update after
every few microbatches while others are in flight (see `weight_versions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.dataflow import Range


def insert_optimizer_steps(lowered: Lowered) -> Lowered:
    """Insert the optimizer steps of every stage that has parameters."""
    plan = lowered.plan
    every = lowered.schedule.updates(plan).every

    def insert(rank: int, instructions: list[Instruction]) -> list[Instruction]:
        ranges = {
            index: (stage.first, stage.last)
            for index, stage in lowered.stages[rank].items()
            if lowered.parameter_bytes(index)
        }
        return with_optimizer_steps(instructions, ranges, every, plan.num_microbatches)

    return lowered.with_lists(insert)


def with_optimizer_steps(
    instructions: Sequence[Instruction],
    ranges: Mapping[int, Range],
    every: int,
    num_microbatches: int,
) -> list[Instruction]:
    """Return `instructions` with the optimizer steps of some stages.

    The steps of a plan that updates once come last; others follow the backward pass that
    completes their gradient. A step waits for the collectives over its gradient.

    Args:
        instructions: those of a rank.
        ranges: the layers of each stage that is updated, by stage.
        every: microbatches between two updates.
        num_microbatches: microbatches of the training step.
    """
    once = every >= num_microbatches
    remaining = _backwards_per_update(instructions, every)
    done = dict.fromkeys(ranges, 0)
    collectives: dict[int, list[Instruction]] = {index: [] for index in ranges}
    built: list[Instruction] = []
    at_end: list[Instruction] = []
    due: list[int] = []
    for position, instruction in enumerate(instructions):
        task, stage = instruction.task, instruction.task.stage
        built.append(instruction)
        if stage not in ranges:
            continue
        if task.tensor.startswith("gradients:"):
            collectives[stage].append(instruction)
        elif task.op in LAST_BACKWARDS:
            remaining[stage, instruction.microbatch // every] -= 1
            if remaining[stage, instruction.microbatch // every] == 0:
                due.append(stage)
        if position + 1 < len(instructions) and instructions[position + 1].task.op in COMMUNICATION:
            continue  # the collectives over this gradient come first, and nobody waits for a step
        for stage in due:
            update = done[stage]
            step = Instruction(
                Task(op=Op.OPTIMIZER_STEP, stage=stage, layers=ranges[stage], version=update),
                -1 if once else min((update + 1) * every, num_microbatches) - 1,
                collectives[stage],
            )
            (at_end if once else built).append(step)
            done[stage] += 1
            collectives[stage] = []
        due = []
    return built + at_end


def _backwards_per_update(
    instructions: Sequence[Instruction], every: int
) -> dict[tuple[int, int], int]:
    """Return how many last backward instructions each (stage, update) waits for."""
    counts: dict[tuple[int, int], int] = {}
    for instruction in instructions:
        if instruction.task.op in LAST_BACKWARDS:
            key = (instruction.task.stage, instruction.microbatch // every)
            counts[key] = counts.get(key, 0) + 1
    return counts

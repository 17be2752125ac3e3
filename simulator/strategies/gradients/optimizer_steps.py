"""When weights are updated: the optimizer steps of every stage.

Synchronous schedules update once, at the end of the step. Asynchronous ones update after
every few microbatches while others are in flight (see `weight_versions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template, argument
from simulator.program.tensors import TensorKind
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.dataflow import Range


def insert_optimizer_steps(lowered: Lowered) -> Lowered:
    """Insert the optimizer steps of every stage that has parameters."""
    plan = lowered.plan
    every = lowered.schedule.updates(plan).every

    def insert(rank: int, calls: list[Call]) -> list[Call]:
        ranges = {
            index: (stage.first, stage.last)
            for index, stage in lowered.stages[rank].items()
            if lowered.parameter_bytes(index)
        }
        return with_optimizer_steps(calls, ranges, every, plan.num_microbatches)

    return lowered.with_calls(insert)


def with_optimizer_steps(
    calls: Sequence[Call], ranges: Mapping[int, Range], every: int, num_microbatches: int
) -> list[Call]:
    """Return `calls` with the optimizer steps of some stages.

    The steps of a plan that updates once come last; others follow the call that completes
    their gradient. A step waits for the collectives over its gradient.

    Args:
        calls: those of a rank.
        ranges: the layers of each stage that is updated, by stage.
        every: microbatches between two updates.
        num_microbatches: microbatches of the training step.
    """
    if not ranges:
        return list(calls)
    once = every >= num_microbatches
    gradients: dict[Template, Gradients] = {}
    for call in calls:
        if call.template not in gradients:
            gradients[call.template] = Gradients.of(call.template)
    remaining = Counter(
        (stage, call.microbatch // every)
        for call in calls
        for stage in gradients[call.template].completed
    )
    done = dict.fromkeys(ranges, 0)
    reduced: dict[int, list[Reference]] = {index: [] for index in ranges}
    built: list[Call] = []
    at_end: list[Call] = []
    due: list[Call] = []
    for call in calls:
        mine = gradients[call.template]
        leading = call.template.leading
        if due and leading:  # it is posted before the steps, and nobody waits for a step
            _insert_behind(call, leading[-1], due)
        else:
            built += due
        built.append(call)
        due = []
        for stage, number in mine.reductions:
            if stage in ranges:
                reduced[stage].append((call, number))
        for stage in mine.completed:
            remaining[stage, call.microbatch // every] -= 1
            if stage not in ranges or remaining[stage, call.microbatch // every]:
                continue
            update = done[stage]
            step = Call.of_task(
                Task(op=Op.OPTIMIZER_STEP, stage=stage, layers=ranges[stage], version=update),
                -1 if once else min((update + 1) * every, num_microbatches) - 1,
                reduced[stage],
            )
            (at_end if once else due).append(step)
            done[stage] += 1
            reduced[stage] = []
    return built + due + at_end


class Gradients(NamedTuple):
    """The part of a template that optimizer steps depend on.

    Attributes:
        completed: the stages of which it is the last backward pass for a microbatch.
        reductions: collectives over gradients: the stage and the number of each, in order.
    """

    completed: tuple[int, ...]
    reductions: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, template: Template) -> Gradients:
        """Return what optimizer steps need to know of a template."""
        tasks = [(number, template.entries[number].task) for number in template.order]
        return cls(
            tuple(dict.fromkeys(task.stage for _, task in tasks if task.op in LAST_BACKWARDS)),
            tuple(
                (t.stage, number)
                for number, t in tasks
                if t.tensor and t.tensor.kind is TensorKind.GRADIENTS
            ),
        )


def _insert_behind(call: Call, number: int, steps: Sequence[Call]) -> None:
    """Let a call carry out optimizer steps, too, directly behind one of its entries."""
    inserted = []
    for step in steps:
        waits = range(len(call.arguments), len(call.arguments) + len(step.arguments))
        call.arguments += step.arguments
        inserted.append(
            (
                number,
                Entry(
                    step.template.entries[0].task,
                    tuple(argument(position) for position in waits),
                    step.microbatch - call.microbatch,
                ),
            )
        )
    call.template = call.template.changed(inserted=inserted)

"""The time of a training step among many: steps follow each other without a common pause."""

from __future__ import annotations

from collections.abc import Callable

from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.experiment.experiment import Experiment
from simulator.prediction import predict
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.strategies.lowering import lower

STEPS = 3
"""Steps that are simulated one after the other; the last one is counted."""


def synchronous_step_s(experiment: Experiment) -> float:
    """Return the seconds that a step adds where each rank begins the next one at once.

    The instruction list of every rank is repeated, and nothing waits but what waits within a
    step: a rank that is done with its list begins it again while others still drain, as in
    Qi et al. 2023 ("Zero Bubble Pipeline Parallelism", section 4), who check for overflow and
    clip after the optimizer step. A schedule whose first or last rank works from the beginning
    of a step to its end gains nothing by that.
    """
    program = repeated(lower(experiment), STEPS)
    timeline = simulate(program, costs_of(program, experiment, resolve(experiment)))
    first, ends = 0, [0.0] * STEPS
    for instructions in program.ranks:
        length = len(instructions) // STEPS
        for step in range(STEPS):
            last = timeline.end[first + step * length : first + (step + 1) * length]
            ends[step] = max(ends[step], float(last.max(initial=0.0)))
        first += len(instructions)
    return ends[-1] - ends[-2]


def asynchronous_step_s(with_steps: Callable[[int], Experiment]) -> float:
    """Return the seconds that a step adds where the schedule never drains.

    Args:
        with_steps: returns the experiment with the microbatches of so many steps in one, which
            an asynchronous schedule orders without a pause between them.
    """
    times = [predict(e, resolve(e)).iteration_time_s for e in map(with_steps, (STEPS - 1, STEPS))]
    return times[1] - times[0]


def repeated(program: Program, steps: int) -> Program:
    """Return `program` with the list of every rank `steps` times, one after the other.

    Communication at the beginning of a list waits for the last compute of the list before,
    as a rank reaches it only then.
    """
    lists: list[list[Instruction]] = []
    for listed in program.ranks:
        lists.append([])
        compute: Instruction | None = None
        for _ in range(steps):
            copies: dict[int, Instruction] = {}
            before = compute
            for instruction in listed:
                task = instruction.task
                copy = Instruction(task, instruction.microbatch, step=instruction.step)
                copy.after = tuple(copies[other.uid] for other in instruction.after)
                copies[instruction.uid] = copy
                if task.stream == COMPUTE_STREAM:
                    compute = copy
                elif before is not None and compute is before:
                    copy.after += (before,)
                lists[-1].append(copy)
    return Program(lists, program.resident, program.buckets, program.num_stages, program.list_of)

"""Several training steps follow each other in one program.

A step does not wait for the end of the one before on all ranks: every rank begins it when its own
instructions let it. What a step leaves under way, such as the gathers of updated parameters, goes
on beside the next one until it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.program.bucket import Bucket
from simulator.program.operations import COMMUNICATION
from simulator.program.template import Call, Reference, Template
from simulator.program.tensors import TensorName
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.step_calls import first_use
from simulator.strategies.lowered import Lowered


def repeat_steps(lowered: Lowered) -> Lowered:
    """Let the calls of every rank, which are those of one step, follow for every step."""
    experiment = lowered.experiment
    count, horizon = experiment.parallel.listed_microbatches, experiment.run.horizon
    return lowered.with_calls(
        lambda rank, calls: repeated(calls, lowered.buckets[rank], count, horizon)
    )


def repeated(
    calls: Sequence[Call], buckets: Sequence[Bucket], num_microbatches: int, horizon: int
) -> list[Call]:
    """Return the calls of several steps.

    The first use of parameters in a step waits for the communication that left them in the step
    before.

    Args:
        calls: those of one step of a rank.
        buckets: the parameters of the rank.
        num_microbatches: of one step.
        horizon: the number of steps.
    """
    left = [
        (use, communication)
        for name, communication in _updates(calls, {bucket.weights for bucket in buckets}).items()
        if (use := first_use(calls, _segments(buckets)[name])) is not None
    ]
    edits = Edits()
    built: list[Call] = []
    before: dict[Call, Call] = {}
    for step in range(horizon):
        made: dict[Call, Call] = {}
        for call in calls:
            of_step = call.microbatch < 0
            made[call] = Call(
                call.template,
                -1 if of_step else call.microbatch + step * num_microbatches,
                [(made[other], number) for other, number in call.arguments],
                step,
            )
        for (user, number), (other, place) in left if step else ():
            edits.wait(made[user], number, (before[other], place))
        built += made.values()
        before = made
    edits.apply()
    return built


def _segments(buckets: Sequence[Bucket]) -> Mapping[TensorName, tuple[tuple[int, int], ...]]:
    return {bucket.weights: bucket.segments for bucket in buckets}


def _updates(calls: Sequence[Call], weights: set[TensorName]) -> dict[TensorName, Reference]:
    """Return the last communication of a step that puts parameters in their place, by name."""
    known: dict[Template, list[tuple[TensorName, int]]] = {}
    found: dict[TensorName, Reference] = {}
    for call in calls:
        if call.template not in known:
            entries = call.template.entries
            known[call.template] = [
                (task.tensor, number)
                for number in call.template.order
                for task in [entries[number].task]
                if task.op in COMMUNICATION
                and task.tensor
                and task.tensor in weights
                and not task.allocates
            ]
        for name, number in known[call.template]:
            found[name] = call, number
    return found

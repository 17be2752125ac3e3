"""The calls of one rank by training step, for transforms in which steps differ."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.bucket import Bucket
from simulator.program.operations import FORWARDS, LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template, argument
from simulator.program.tensors import TensorKind


class StepCalls:
    """The calls of one rank, whose steps follow each other and update once each.

    Args:
        calls: those of all steps, in order.
        num_microbatches: of one step.
    """

    def __init__(self, calls: Sequence[Call], num_microbatches: int) -> None:
        self._calls = list(calls)
        self._before: dict[Call, list[Call]] = {}
        self._behind: dict[Call, list[Call]] = {}
        self._at_end: list[Call] = []
        self._templates: dict[tuple[int, int], Template] = {}
        self._of_step: dict[int, list[Call]] = {}
        for call in calls:
            at = call.microbatch
            step = call.step if at < 0 else at // num_microbatches
            self._of_step.setdefault(step, []).append(call)

    def updates(self, step: int, bucket: Bucket) -> list[Call]:
        """Return what uses the gradients of a bucket at the end of a step; its update is last."""
        found = []
        for call in self._of_step[step]:
            task = call.template.entries[0].task
            if task.op in (Op.GRADIENT_NORM, Op.OPTIMIZER_STEP) and _contains(task, bucket):
                found.append(call)
        return found

    def last_gradient(self, step: int, bucket: Bucket) -> Reference:
        """Return the entry behind which the replica's own gradient of a bucket is known.

        It is the last backward pass of the bucket, or what sums its gradients in the replica.
        """
        for call in reversed(self._of_step[step]):
            for number in reversed(call.template.order):
                task = call.template.entries[number].task
                backward = task.op in LAST_BACKWARDS and task.layers in bucket.segments
                if backward or task.tensor == bucket.name:
                    return call, number
        raise ValueError(f"step {step} has no gradient of {bucket.name}")

    def first_use(self, step: int, bucket: Bucket) -> Reference | None:
        """Return the first forward pass of a step that uses the parameters of a bucket.

        None: there is no such step.
        """
        return first_use(self._of_step.get(step, ()), bucket.segments)

    def insert(
        self,
        task: Task,
        step: int,
        waits: Sequence[Reference],
        *,
        behind: Call | None = None,
        before: Call | None = None,
    ) -> Reference:
        """Insert a task of a step behind a call or before it, after others that are there already.

        Neither is given: it comes at the end. Calls of one task share a template.
        """
        key = id(task), len(waits)
        if key not in self._templates:
            entry = Entry(task, tuple(argument(position) for position in range(len(waits))))
            self._templates[key] = Template([entry])
        call = Call(self._templates[key], -1, waits, step)
        if behind is not None:
            self._behind.setdefault(behind, []).append(call)
        elif before is not None:
            self._before.setdefault(before, []).append(call)
        else:
            self._at_end.append(call)
        return call, 0

    def calls(self) -> list[Call]:
        """Return all calls in order, with those that were inserted."""
        found: list[Call] = []
        for call in self._calls:
            found += (*self._before.get(call, ()), call, *self._behind.get(call, ()))
        return found + self._at_end


def first_use(calls: Sequence[Call], segments: Sequence[tuple[int, int]]) -> Reference | None:
    """Return the first forward pass through one of some segments."""
    for call in calls:
        for number in call.template.computes:
            task = call.template.entries[number].task
            if task.op in FORWARDS and task.layers in segments:
                return call, number
    return None


def _contains(task: Task, bucket: Bucket) -> bool:
    first, last = bucket.segments[0][0], bucket.segments[-1][1]
    assert task.tensor is None or task.tensor.kind is not TensorKind.GRADIENTS
    return task.layers[0] <= first and last <= task.layers[1]

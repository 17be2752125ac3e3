"""The instructions of a list as columns of integers, for what looks at all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.program.call_columns import CallColumns
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION
from simulator.program.task import Task
from simulator.program.template import Template

Integers = npt.NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)


class Columns(NamedTuple):
    """The instructions of one list, in order.

    Attributes:
        tasks: the distinct tasks.
        task: per instruction the position of its task in `tasks`.
        microbatch: per instruction; -1: none.
        step: per instruction, its training step.
        begin: per instruction, and once more at the end, where its waits begin in `waits`.
        waits: the positions of what instructions wait for, ascending for each.
    """

    tasks: list[Task]
    task: Integers
    microbatch: Integers
    step: Integers
    begin: Integers
    waits: Integers

    def __len__(self) -> int:
        return int(self.task.size)

    def positions(self, key: Callable[[Task], Key | None]) -> dict[Key, Integers]:
        """Return the positions of instructions by a key of their task, ascending.

        Args:
            key: returns that of a task; None: it is left out.
        """
        numbers: dict[Key, int] = {}
        of_task = np.full(len(self.tasks), -1, dtype=np.int64)
        for position, task in enumerate(self.tasks):
            found = key(task)
            if found is not None:
                of_task[position] = numbers.setdefault(found, len(numbers))
        number = of_task[self.task]
        order = np.argsort(number, kind="stable")
        bounds = np.searchsorted(number[order], np.arange(len(numbers) + 1)).tolist()
        parts = [order[begin:end] for begin, end in pairwise(bounds)]
        return dict(zip(numbers, parts, strict=True))


def columns_of_list(instructions: Sequence[Instruction]) -> Columns:
    """Return the columns of instructions that know their positions."""
    numbers: dict[int, int] = {}
    tasks: list[Task] = []
    task: list[int] = []
    waits: list[int] = []
    for instruction in instructions:
        number = numbers.setdefault(id(instruction.task), len(tasks))
        if number == len(tasks):
            tasks.append(instruction.task)
        task.append(number)
        after = instruction.after
        if len(after) == 1:
            waits.append(after[0].index)
        elif after:
            waits += sorted([other.index for other in after])
    return Columns(
        tasks,
        np.array(task, dtype=np.int64),
        np.array([i.microbatch for i in instructions], dtype=np.int64),
        np.array([i.step for i in instructions], dtype=np.int64),
        _begins(np.array([len(i.after) for i in instructions], dtype=np.int64)),
        np.array(waits, dtype=np.int64),
    )


def columns_of_calls(calls: CallColumns, num_microbatches: int = 0) -> Columns:
    """Return the columns of what `simulator.program.template.expand` writes out."""
    number_of: dict[int, int] = {}
    tasks: list[Task] = []
    shapes = [_Shape(template, tasks, number_of) for template in calls.templates]
    begin, step = calls.begin, calls.step
    if num_microbatches:
        step = np.where(calls.microbatch >= 0, calls.microbatch // num_microbatches, step)
    last = _last_computes(calls, shapes)
    total = len(calls)
    columns = np.empty((3, total), dtype=np.int64)
    owners: list[Integers] = []
    waits: list[Integers] = []
    for number, shape in enumerate(shapes):
        mine = calls.of_template(number)
        starts = begin[mine][:, None]
        block = starts + np.arange(shape.task.size)
        columns[0][block] = shape.task
        columns[1][block] = np.where(
            shape.of_step, -1, calls.microbatch[mine][:, None] + shape.shift
        )
        columns[2][block] = step[mine][:, None]
        owners.append((starts + shape.waiting).ravel())
        waits.append((starts + shape.waited).ravel())
        if shape.asking.size:
            owners.append((starts + shape.asking).ravel())
            waits.append(calls.arguments(number)[:, shape.argument].ravel())
        if shape.leading.size:
            before = np.broadcast_to(last[mine][:, None], (mine.size, shape.leading.size)).ravel()
            owner = (starts + shape.leading).ravel()
            owners.append(owner[before >= 0])
            waits.append(before[before >= 0])
    owner, waited = _distinct(np.concatenate(owners), np.concatenate(waits), total)
    if num_microbatches:
        counted = columns[1] >= 0
        columns[2] = np.where(counted, columns[1] // num_microbatches, columns[2])
        columns[1] = np.where(counted, columns[1] % num_microbatches, columns[1])
    return Columns(
        *(tasks, columns[0], columns[1], columns[2]),
        *(_begins(np.bincount(owner, minlength=total)), waited),
    )


class _Shape:
    """A template as arrays, by position in the order of its list.

    Attributes:
        task, shift, of_step: of each entry; a shift is 0 where the entry is of the step.
        waiting, waited: positions of what waits, and of what it waits for, within the template.
        asking, argument: positions of what waits for an argument, and for which.
        leading: positions of communication before the first compute.
        last_compute: the position of the last compute; -1: there is none.
    """

    def __init__(self, template: Template, tasks: list[Task], number_of: dict[int, int]) -> None:
        entries = [template.entries[number] for number in template.order]
        places = {number: place for place, number in enumerate(template.order)}
        self.task = np.empty(len(entries), dtype=np.int64)
        for place, entry in enumerate(entries):
            number = number_of.setdefault(id(entry.task), len(tasks))
            if number == len(tasks):
                tasks.append(entry.task)
            self.task[place] = number
        self.shift = np.array([entry.shift or 0 for entry in entries], dtype=np.int64)
        self.of_step = np.array([entry.shift is None for entry in entries], dtype=bool)
        inside, outside, leading = [], [], []
        last = -1
        for place, entry in enumerate(entries):
            inside += [(place, places[wait]) for wait in entry.waits if wait >= 0]
            outside += [(place, ~wait) for wait in entry.waits if wait < 0]
            if entry.task.op not in COMMUNICATION:
                last = place
            elif last >= 0:
                inside.append((place, last))
            else:
                leading.append(place)
        self.waiting, self.waited = np.array(inside, dtype=np.int64).reshape(-1, 2).T
        self.asking, self.argument = np.array(outside, dtype=np.int64).reshape(-1, 2).T
        self.leading = np.array(leading, dtype=np.int64)
        self.last_compute = last


def _last_computes(calls: CallColumns, shapes: Sequence[_Shape]) -> Integers:
    """Return, per call, the position of the last compute before it; -1: there is none."""
    last = np.array([shape.last_compute for shape in shapes], dtype=np.int64)[calls.template]
    found = np.where(last >= 0, last + calls.begin[:-1], -1)
    return np.concatenate([[-1], np.maximum.accumulate(found)[:-1]]).astype(np.int64)


def _begins(counts: Integers) -> Integers:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _distinct(owner: Integers, waited: Integers, count: int) -> tuple[Integers, Integers]:
    """Return pairs in ascending order, each once."""
    pairs = np.unique(owner * count + waited)
    return pairs // max(count, 1), pairs % max(count, 1)

"""The calls of a list as columns of integers, for what looks at all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulator.program.template import Call, Template

Integers = npt.NDArray[np.int64]


class CallColumns:
    """The calls of one list, in order.

    Attributes:
        calls: as they are.
        templates: the distinct templates, in the order of their first calls.
        template: per call the position of its template in `templates`.
        microbatch: per call, counted on from one training step to the next; -1: none.
        step: per call, the training step of what belongs to no microbatch.
        begin: per call, and once more at the end, the position of its first instruction.
        first: per template, where its entries begin among those of all templates.
        place: per entry of all templates its position in a call.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        used = [call.template for call in calls]
        self.templates: list[Template] = list(dict.fromkeys(used))
        numbers = {template: number for number, template in enumerate(self.templates)}
        self.template = np.array([numbers[template] for template in used], dtype=np.int64)
        self.microbatch = np.array([call.microbatch for call in calls], dtype=np.int64)
        self.step = np.array([call.step for call in calls], dtype=np.int64)
        lengths = np.array([len(template.order) for template in self.templates], dtype=np.int64)
        self.begin = np.zeros(len(calls) + 1, dtype=np.int64)
        np.cumsum(lengths[self.template], out=self.begin[1:])
        self.first = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        self.place = np.empty(int(lengths.sum()), dtype=np.int64)
        for first, template in zip(self.first.tolist(), self.templates, strict=True):
            self.place[first + np.array(template.order, dtype=np.int64)] = range(
                len(template.order)
            )
        order = np.argsort(self.template, kind="stable")
        bounds = np.searchsorted(self.template[order], np.arange(len(self.templates) + 1))
        self._order, self._bounds = order, bounds.tolist()
        self._arguments: dict[int, Integers] = {}

    def __len__(self) -> int:
        """Return the number of instructions."""
        return int(self.begin[-1])

    @cached_property
    def _index(self) -> dict[Call, int]:
        return {call: index for index, call in enumerate(self.calls)}

    def of_template(self, number: int) -> Integers:
        """Return which calls have a template, in order."""
        found: Integers = self._order[self._bounds[number] : self._bounds[number + 1]]
        return found

    def arguments(self, number: int) -> Integers:
        """Return the positions of the arguments of the calls of a template, a row each."""
        if number not in self._arguments:
            chosen = self.of_template(number).tolist()
            references = [reference for call in chosen for reference in self.calls[call].arguments]
            index = self._index
            others = np.array([index[other] for other, _ in references], dtype=np.int64)
            entries = np.array([entry for _, entry in references], dtype=np.int64)
            found = self.begin[others] + self.place[self.first[self.template[others]] + entries]
            self._arguments[number] = found.reshape(len(chosen), -1)
        return self._arguments[number]

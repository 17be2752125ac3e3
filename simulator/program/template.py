"""Templates and calls: what all microbatches of a pass share is written once.

The list of a rank is a sequence of calls. A call carries out the tasks of a template for one
microbatch; the instructions that this means are made where someone wants each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task


class Entry(NamedTuple):
    """One task of a template.

    Attributes:
        task: what is done.
        waits: what must have ended: the numbers of entries of the same template, and
            `argument(n)` for what the call names as its n-th argument. Communication waits for
            the compute listed before it as well, without saying so.
        shift: its microbatch minus that of the call; None: it belongs to the step, not to a
            microbatch.
    """

    task: Task
    waits: tuple[int, ...] = ()
    shift: int | None = 0


def argument(position: int) -> int:
    """Return the number that stands for an argument of the call in `Entry.waits`."""
    return ~position


class Template:
    """Tasks in the order of a list, with what each waits for.

    A template does not change. One with more entries is another template, in which the old
    entries keep their numbers, so that what refers to them stays right.

    Attributes:
        entries: by number.
        order: the numbers in the order of the list.
    """

    def __init__(self, entries: Sequence[Entry], order: Sequence[int] | None = None) -> None:
        self.entries = tuple(entries)
        self.order = tuple(range(len(self.entries))) if order is None else tuple(order)

    @cached_property
    def computes(self) -> tuple[int, ...]:
        """The numbers of what is on the compute stream, in order."""
        return tuple(
            number for number in self.order if self.entries[number].task.stream == COMPUTE_STREAM
        )

    @cached_property
    def leading(self) -> tuple[int, ...]:
        """The numbers of the communication before the first compute, in order."""
        if not self.computes:
            return self.order
        return self.order[: self.order.index(self.computes[0])]

    def changed(
        self,
        entries: Mapping[int, Entry] | None = None,
        inserted: Sequence[tuple[int, Entry]] = (),
    ) -> Template:
        """Return a template with some entries replaced, and others inserted.

        Args:
            entries: what takes the place of entries, by number.
            inserted: new entries, which get the next numbers in this order, each with the number
                of the old one that it follows; those that follow the same one keep their order.
        """
        found = list(self.entries)
        for number, entry in (entries or {}).items():
            found[number] = entry
        behind: dict[int, list[int]] = {}
        for number, entry in inserted:
            behind.setdefault(number, []).append(len(found))
            found.append(entry)
        order = [new for old in self.order for new in (old, *behind.get(old, ()))]
        return Template(found, order)


class Call:
    """A template, carried out for one microbatch.

    Calls are equal only if they are one object, so a list may be changed freely.

    Attributes:
        template: what is done.
        microbatch: for which microbatch, counted on from one training step to the next; -1:
            none, it belongs to the step.
        step: the training step of what belongs to no microbatch.
        arguments: what its entries wait for outside: earlier calls of the same list, each with
            the number of an entry.
    """

    __slots__ = ("template", "microbatch", "arguments", "step")

    def __init__(
        self,
        template: Template,
        microbatch: int = -1,
        arguments: Iterable[Reference] = (),
        step: int = 0,
    ) -> None:
        self.template = template
        self.microbatch = microbatch
        self.step = step
        self.arguments = tuple(arguments)

    @classmethod
    def of_task(cls, task: Task, microbatch: int = -1, arguments: Iterable[Reference] = ()) -> Call:
        """Return a call of one task, which waits for all arguments."""
        given = tuple(arguments)
        waits = tuple(argument(position) for position in range(len(given)))
        return cls(Template([Entry(task, waits)]), microbatch, given)


Reference = tuple[Call, int]
"""A call, and the number of one of the entries of its template."""


class Variants:
    """Templates that differ from others in the same way: each is made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Template, Hashable], Template] = {}

    def get(
        self, template: Template, difference: Hashable, make: Callable[[], Template]
    ) -> Template:
        """Return the variant of a template with this difference; `make` is asked once."""
        key = template, difference
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def expand(calls: Iterable[Call], num_microbatches: int = 0) -> list[Instruction]:
    """Return the instructions of the calls of a rank, in order.

    Args:
        calls: those of the rank.
        num_microbatches: of a training step; 0: there is one step.

    Raises:
        KeyError: a call names one that is not earlier in the list.
    """
    built: list[Instruction] = []
    made: dict[Call, dict[int, Instruction]] = {}
    last: Instruction | None = None  # compute, which communication behind it waits for
    for call in calls:
        template, microbatch = call.template, call.microbatch
        counted = num_microbatches and microbatch >= 0
        of_step = microbatch // num_microbatches if counted else call.step
        mine = made[call] = {}
        for number in template.order:
            task, waits, shift = template.entries[number]
            after = []
            for wait in waits:
                if wait >= 0:
                    after.append(mine[wait])
                else:
                    other, place = call.arguments[~wait]
                    after.append(made[other][place])
            step, at = of_step, -1 if shift is None else microbatch + shift
            if num_microbatches and at >= 0:
                step, at = divmod(at, num_microbatches)
            if task.op in COMMUNICATION and last is not None and last not in after:
                after.append(last)
            instruction = mine[number] = Instruction(task, at, after, step)
            if task.op not in COMMUNICATION:
                last = instruction
            built.append(instruction)
    return built

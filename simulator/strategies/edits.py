"""Changes of single calls, collected and then made at once.

Calls that change in the same way still share a template.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from simulator.program.task import Task
from simulator.program.template import Call, Entry, Reference, Template, Variants, argument
from simulator.program.tensors import Tensor, TensorName


@dataclass
class Edit:
    """The changes of one call.

    Attributes:
        more: tensors that an entry allocates, or names that it frees, by its number.
        replaced: other tasks for entries, by their numbers.
        waits: what an entry waits for, too: the number of another entry, or an argument.
        inserted: new entries, each with the number of the one that it directly follows, and how
            its microbatch is told from that of the call.
        arguments: the new ones of the call.
    """

    more: list[tuple[int, Tensor | TensorName]] = field(default_factory=list)
    replaced: list[tuple[int, Task]] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    inserted: list[tuple[int, Task, int | None]] = field(default_factory=list)
    arguments: list[Reference] = field(default_factory=list)


class Edits:
    """The changes of some calls."""

    def __init__(self) -> None:
        self._edits: dict[Call, Edit] = {}

    def _of(self, call: Call) -> Edit:
        return self._edits.setdefault(call, Edit())

    def allocate(self, call: Call, number: int, tensor: Tensor) -> None:
        """Let an entry allocate a tensor."""
        self._of(call).more.append((number, tensor))

    def free(self, call: Call, number: int, name: TensorName) -> None:
        """Let an entry free the tensor of a name."""
        self._of(call).more.append((number, name))

    def replace(self, call: Call, number: int, task: Task) -> None:
        """Let an entry do something else, with the waits that it has."""
        self._of(call).replaced.append((number, task))

    def wait(self, call: Call, number: int, other: Reference) -> None:
        """Let an entry wait for another one, of the same call or of an earlier one."""
        edit = self._of(call)
        if other[0] is call:
            edit.waits.append((number, other[1]))
        else:
            edit.waits.append((number, argument(len(call.arguments) + len(edit.arguments))))
            edit.arguments.append(other)

    def insert(self, behind: Reference, task: Task, microbatch: int | None) -> Reference:
        """Insert a task directly behind an entry; return where it is.

        Args:
            behind: the entry.
            task: what is inserted.
            microbatch: for which; None: it belongs to the training step of the call.
        """
        call, number = behind
        edit = self._of(call)
        shift = None if microbatch is None else microbatch - call.microbatch
        edit.inserted.append((number, task, shift))
        return call, len(call.template.entries) + len(edit.inserted) - 1

    def apply(self) -> None:
        """Make all changes."""
        variants = Variants()
        for call, edit in self._edits.items():
            inserted = tuple((number, id(task), shift) for number, task, shift in edit.inserted)
            replaced = tuple((number, id(task)) for number, task in edit.replaced)
            difference = tuple(edit.more), tuple(edit.waits), inserted, replaced
            call.template = variants.get(
                call.template, difference, partial(_edited, call.template, edit)
            )
            call.arguments += tuple(edit.arguments)


def _edited(template: Template, edit: Edit) -> Template:
    entries: dict[int, Entry] = {
        number: template.entries[number]._replace(task=task) for number, task in edit.replaced
    }
    for number, more in edit.more:
        entry = entries.get(number, template.entries[number])
        task = entry.task
        if isinstance(more, Tensor):
            task = replace(task, allocates=(*task.allocates, more))
        else:
            task = replace(task, frees=(*task.frees, more))
        entries[number] = entry._replace(task=task)
    inserted = [Entry(task, (), shift) for _, task, shift in edit.inserted]
    for number, wait in edit.waits:
        if number >= len(template.entries):  # one that is inserted
            new = number - len(template.entries)
            inserted[new] = inserted[new]._replace(waits=(*inserted[new].waits, wait))
            continue
        entry = entries.get(number, template.entries[number])
        entries[number] = entry._replace(waits=(*entry.waits, wait))
    places = [number for number, _, _ in edit.inserted]
    return template.changed(entries, list(zip(places, inserted, strict=True)))

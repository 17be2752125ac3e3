"""Tensors are sound in a list of calls if they are in each template and where calls follow.

What happens inside a call is looked at once for each template; of every call only what it shares
with others is. This never takes a wrong list for a right one; what it cannot vouch for,
`simulator.program.tensor_lifetimes` looks at instruction by instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from simulator.program.operations import COMPUTE_STREAM
from simulator.program.template import Call, Reference, Template
from simulator.program.tensor_lifetimes import reads_of
from simulator.program.tensors import tensor_key

Symbol = tuple[str, int | None]
"""A tensor in a template: its name, and its microbatch minus that of the call, or None: no one."""


class Touch(Enum):
    """The ways in which a call touches a tensor that others touch, too."""

    READ = "read"
    MAKE = "make"
    FREE = "free"


class Event(NamedTuple):
    """One touch of a tensor, in the order of the list.

    Attributes:
        touch: what is done.
        symbol: to which tensor.
        number: the entry that does it.
    """

    touch: Touch
    symbol: Symbol
    number: int


class Summary(NamedTuple):
    """The part of a template that other calls have to know.

    Attributes:
        events: touches of tensors that it does not make and free itself.
        past: by number, the entries that have surely ended when the entry starts.
        arguments: by number, the arguments that have.
        settled: entries with events that have ended when the last compute has; nothing that
            comes later need ask for them.
        settles: arguments that have.
    """

    events: tuple[Event, ...]
    past: dict[int, frozenset[int]]
    arguments: dict[int, frozenset[int]]
    settled: frozenset[int]
    settles: frozenset[int]


def summary_of(template: Template) -> Summary | None:
    """Return what other calls have to know of a template; None: it is not sound by itself."""
    past: dict[int, frozenset[int]] = {}
    arguments: dict[int, frozenset[int]] = {}
    last_of: dict[str, int] = {}
    for number in template.order:
        task, waits, _ = template.entries[number]
        before = {wait for wait in waits if wait >= 0}
        before.update(last_of[s] for s in (task.stream, COMPUTE_STREAM) if s in last_of)
        past[number] = frozenset(before).union(*(past[other] for other in before))
        own = frozenset(~wait for wait in waits if wait < 0)
        arguments[number] = own.union(*(arguments[other] for other in before))
        last_of[task.stream] = number
    found = _events(template, past)
    if found is None:
        return None
    end = template.computes[-1:]
    touching = {event.number for event in found}
    settled = frozenset(end).union(*(past[number] for number in end)) & touching
    settles: frozenset[int] = frozenset().union(*(arguments[number] for number in end))
    return Summary(found, past, arguments, settled, settles)


def _events(template: Template, past: dict[int, frozenset[int]]) -> tuple[Event, ...] | None:
    """Return the touches that other calls have to know; None: some inside are wrong."""
    made: dict[Symbol, int] = {}  # here, and not yet freed
    gone: set[Symbol] = set()  # freed here, and not made again
    readers: dict[Symbol, list[int]] = {}
    events: list[Event] = []
    for number in template.order:
        task, _, shift = template.entries[number]

        def symbol(name: str, shift: int | None = shift) -> Symbol:
            return (name, None) if "@" in name else (name, shift)

        for key in map(symbol, reads_of(task)):
            if key in gone or (key in made and made[key] not in past[number]):
                return None
            if task.stream != COMPUTE_STREAM:
                readers.setdefault(key, []).append(number)
            if key not in made or task.stream != COMPUTE_STREAM:
                events.append(Event(Touch.READ, key, number))
        for tensor in task.allocates:
            key = symbol(tensor.name)
            if key in made:
                return None
            made[key] = number
            gone.discard(key)
            events.append(Event(Touch.MAKE, key, number))
        for key in map(symbol, task.frees):
            if key in gone or any(
                n != number and n not in past[number] for n in readers.pop(key, ())
            ):
                return None
            made.pop(key, None)
            gone.add(key)
            events.append(Event(Touch.FREE, key, number))
    return tuple(_without_inner(events))


def _without_inner(events: Sequence[Event]) -> list[Event]:
    """Return the events without tensors that are made and freed within the template."""
    since: dict[Symbol, list[int]] = {}  # positions of events since it was made
    inner: set[int] = set()
    for position, event in enumerate(events):
        if event.touch is Touch.MAKE:
            since[event.symbol] = []
        if event.symbol in since:
            since[event.symbol].append(position)
            if event.touch is Touch.FREE:
                inner.update(since.pop(event.symbol))
    return [event for position, event in enumerate(events) if position not in inner]


def are_sound(calls: Sequence[Call]) -> bool:
    """Tell whether every tensor of a list is made before it is read, and freed once after that.

    False means that this cannot be told call by call.
    """
    summaries: dict[Template, Summary] = {}
    for call in calls:
        if call.template not in summaries:
            summary = summary_of(call.template)
            if summary is None:
                return False
            summaries[call.template] = summary
    kinds = {(call.template, call.microbatch < 0) for call in calls}
    ever = {
        (tensor.name, of_step or entry.shift is None or "@" in tensor.name)
        for template, of_step in kinds
        for entry in template.entries
        for tensor in entry.task.allocates
    }
    return _Ledger(ever).follow(calls, summaries)


class _Ledger:
    """The tensors that exist between calls, and who made and reads them."""

    def __init__(self, ever: set[tuple[str, bool]]) -> None:
        # Names that some call makes, and whether once a step; others are there throughout.
        self._ever = ever
        self._held: dict[tuple[str, int], Reference] = {}
        self._readers: dict[tuple[str, int], list[Reference]] = {}
        self._settled: set[Reference] = set()

    def follow(self, calls: Sequence[Call], summaries: dict[Template, Summary]) -> bool:
        """Go through all calls; tell whether nothing is wrong or doubtful."""
        for call in calls:
            summary = summaries[call.template]
            for event in summary.events:
                name, shift = event.symbol
                key = tensor_key(name, -1 if shift is None else call.microbatch + shift)
                if (name, key[1] < 0) not in self._ever and event.touch is Touch.READ:
                    continue
                if not self._touch(event, key, call, summary):
                    return False
            self._settled.update((call, number) for number in summary.settled)
            self._settled.update(call.arguments[position] for position in summary.settles)
        return not self._held

    def _touch(self, event: Event, key: tuple[str, int], call: Call, summary: Summary) -> bool:
        here = call, event.number
        if event.touch is Touch.MAKE:
            if key in self._held:
                return False
            self._held[key] = here
            return True
        owner = self._held.get(key)
        if owner is None or not self._is_before(owner, here, summary):
            return False
        if event.touch is Touch.READ:
            if call.template.entries[event.number].task.stream != COMPUTE_STREAM:
                self._readers.setdefault(key, []).append(here)
            return True
        del self._held[key]
        return all(
            reader == here or self._is_before(reader, here, summary)
            for reader in self._readers.pop(key, ())
        )

    def _is_before(self, first: Reference, second: Reference, summary: Summary) -> bool:
        """Tell whether an entry, listed earlier, has surely ended when another one starts."""
        call, number = second
        if first[0] is call:
            return first[1] in summary.past[number] or _stream(first) == COMPUTE_STREAM
        stream = _stream(first)
        return (
            stream in (COMPUTE_STREAM, _stream(second))
            or first in self._settled
            or any(first == call.arguments[n] for n in summary.arguments[number])
            or any(stream == _stream((call, other)) for other in summary.past[number])
        )


def _stream(reference: Reference) -> str:
    call, number = reference
    return call.template.entries[number].task.stream

"""Tensors are sound in a list of calls if they are in each template and where calls follow.

What happens inside a call is looked at once for each template; of every call only what it shares
with others is. This never takes a wrong list for a right one; what it cannot vouch for,
`simulator.program.tensor_lifetimes` looks at instruction by instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from simulator.program.operations import COMPUTE_STREAM
from simulator.program.template import Call, Reference, Template
from simulator.program.tensor_lifetimes import reads_of
from simulator.program.tensors import TensorKey, tensor_key

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
        past: by number, the entries that have surely ended when the entry starts, as bits.
        arguments: by number, the arguments that have, as bits.
        settled: communication with events that has ended when the last compute has; nothing
            that comes later need ask for it.
        settles: arguments that have.
    """

    events: tuple[Event, ...]
    past: dict[int, int]
    arguments: dict[int, int]
    settled: list[int]
    settles: list[int]


def summary_of(template: Template) -> Summary | None:
    """Return what other calls have to know of a template; None: it is not sound by itself."""
    past: dict[int, int] = {}
    arguments: dict[int, int] = {}
    last_of: dict[str, int] = {}
    for number in template.order:
        task, waits, _ = template.entries[number]
        past[number] = arguments[number] = 0
        for wait in waits:
            if wait < 0:
                arguments[number] |= 1 << ~wait
        before = [last_of[s] for s in (task.stream, COMPUTE_STREAM) if s in last_of]
        for other in (*before, *(wait for wait in waits if wait >= 0)):
            past[number] |= past[other] | 1 << other
            arguments[number] |= arguments[other]
        last_of[task.stream] = number
    found = _events(template, past)
    if found is None:
        return None
    ended = settles = 0
    for number in template.computes[-1:]:
        ended, settles = past[number] | 1 << number, arguments[number]
    touching = {event.number for event in found}.difference(template.computes)
    settled = [number for number in sorted(touching) if ended >> number & 1]
    return Summary(found, past, arguments, settled, _bits(settles))


def _bits(mask: int) -> list[int]:
    """Return the positions of the bits that are set."""
    return [position for position in range(mask.bit_length()) if mask >> position & 1]


def _events(template: Template, past: dict[int, int]) -> tuple[Event, ...] | None:
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
            if key in gone or (key in made and not past[number] >> made[key] & 1):
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
            ended = past[number] | 1 << number
            if key in gone or not all(ended >> reader & 1 for reader in readers.pop(key, ())):
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
    summaries: dict[tuple[Template, bool], Summary] = {}
    for call in calls:
        kind = call.template, call.microbatch < 0
        if kind not in summaries:
            summary = summary_of(call.template)
            if summary is None:
                return False
            summaries[kind] = summary
    follows = _followed(summaries)
    events = {
        kind: [event for event in summary.events if follows(kind, event)]
        for kind, summary in summaries.items()
    }
    return _Ledger().follow(calls, summaries, events)


Kind = tuple[Template, bool]
"""A template, and whether it is called for the step, not for a microbatch."""


def _followed(summaries: Mapping[Kind, Summary]) -> Callable[[Kind, Event], bool]:
    """Return what tells whether an event has to be followed from call to call.

    Tensors that nobody makes are there throughout. Of those that only passes touch, all in the
    same way, as what the segments of a stage save, one stands for all.
    """
    made = {
        (tensor.name, of_step or entry.shift is None or "@" in tensor.name)
        for template, of_step in summaries
        for entry in template.entries
        for tensor in entry.task.allocates
    }
    touched: dict[str, list[tuple[int, Touch, int | None]]] = {}
    beside: set[str] = set()  # names that communication touches
    for number, ((template, _), summary) in enumerate(summaries.items()):
        for event in summary.events:
            name, shift = event.symbol
            touched.setdefault(name, []).append((number, event.touch, shift))
            if template.entries[event.number].task.stream != COMPUTE_STREAM:
                beside.add(name)
    first: dict[tuple[tuple[int, Touch, int | None], ...], str] = {}
    stands = {name for name, how in touched.items() if first.setdefault(tuple(how), name) == name}

    def follows(kind: Kind, event: Event) -> bool:
        name, shift = event.symbol
        exists = event.touch is not Touch.READ or (name, kind[1] or shift is None) in made
        return exists and (name in stands or name in beside)

    return follows


class _Ledger:
    """The tensors that exist between calls, and who made and reads them."""

    def __init__(self) -> None:
        self._held: dict[TensorKey, Reference] = {}
        self._readers: dict[TensorKey, list[Reference]] = {}
        self._settled: set[Reference] = set()

    def follow(
        self,
        calls: Sequence[Call],
        summaries: Mapping[Kind, Summary],
        events: Mapping[Kind, Sequence[Event]],
    ) -> bool:
        """Go through all calls; tell whether nothing is wrong or doubtful."""
        for call in calls:
            kind = call.template, call.microbatch < 0
            summary = summaries[kind]
            for event in events[kind]:
                name, shift = event.symbol
                of_step = shift is None or call.microbatch < 0
                number = -1 - call.step if of_step else call.microbatch + (shift or 0)
                key = tensor_key(name, (0, number))
                if not self._touch(event, key, call, summary):
                    return False
            self._settled.update([(call, number) for number in summary.settled])
            self._settled.update([call.arguments[position] for position in summary.settles])
        return not self._held

    def _touch(self, event: Event, key: TensorKey, call: Call, summary: Summary) -> bool:
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
            return bool(summary.past[number] >> first[1] & 1) or _stream(first) == COMPUTE_STREAM
        stream = _stream(first)
        return (
            stream in (COMPUTE_STREAM, _stream(second))
            or first in self._settled
            or any(first == call.arguments[n] for n in _bits(summary.arguments[number]))
            or any(stream == _stream((call, other)) for other in _bits(summary.past[number]))
        )


def _stream(reference: Reference) -> str:
    call, number = reference
    return call.template.entries[number].task.stream

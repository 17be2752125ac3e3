"""Summaries of templates: the part of a call's tensors and waits that other calls have to know."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.template import Template
from simulator.program.tensor_lifetimes import reads_of
from simulator.program.tensors import TensorName

Symbol = tuple[TensorName, int | None]
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
    last_of: dict[Stream, int] = {}
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
    return Summary(found, past, arguments, settled, bits(settles))


def bits(mask: int) -> list[int]:
    """Return the positions of the bits that are set."""
    return [position for position in range(mask.bit_length()) if mask >> position & 1]


def _events(template: Template, past: dict[int, int]) -> tuple[Event, ...] | None:
    """Return the touches that other calls have to know; None: some inside are wrong."""
    made: dict[Symbol, int] = {}  # here, and not yet freed
    gone: set[Symbol] = set()  # freed here, and not made again
    readers: dict[Symbol, list[int]] = {}
    events: list[Event] = []
    computes = set(template.computes)
    for number in template.order:
        task, _, shift = template.entries[number]
        is_compute = number in computes
        for name in reads_of(task):
            key = _symbol(name, shift)
            if key in gone or (key in made and not past[number] >> made[key] & 1):
                return None
            if not is_compute:
                readers.setdefault(key, []).append(number)
            if not is_compute or key not in made:
                events.append(Event(Touch.READ, key, number))
        for tensor in task.allocates:
            key = _symbol(tensor.name, shift)
            if key in made:
                return None
            made[key] = number
            gone.discard(key)
            events.append(Event(Touch.MAKE, key, number))
        for name in task.frees:
            key = _symbol(name, shift)
            ended = past[number] | 1 << number
            if key in gone or not all(ended >> reader & 1 for reader in readers.pop(key, ())):
                return None
            made.pop(key, None)
            gone.add(key)
            events.append(Event(Touch.FREE, key, number))
    return tuple(_without_inner(events))


def _symbol(name: TensorName, shift: int | None) -> Symbol:
    return (name, None) if name.is_one_at_a_time else (name, shift)


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

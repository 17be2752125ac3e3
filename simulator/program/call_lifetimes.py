"""Tensors are sound in a list of calls if they are in each template and where calls follow.

What happens inside a call is looked at once for each template; of every call only what it shares
with others is. This never takes a wrong list for a right one; what it cannot vouch for,
`simulator.program.tensor_lifetimes` looks at instruction by instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.program.call_columns import CallColumns, Integers
from simulator.program.call_summary import Event, Summary, Touch, bits, summary_of
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.template import Template
from simulator.program.tensors import TensorName

Kind = tuple[int, bool]
"""The number of a template, and whether it is called for the step, not for a microbatch."""


def are_sound(calls: CallColumns) -> bool:
    """Tell whether every tensor of a list is made before it is read, and freed once after that.

    False means that this cannot be told call by call.
    """
    summaries: list[Summary] = []
    for template in calls.templates:
        summary = summary_of(template)
        if summary is None:
            return False
        summaries.append(summary)
    codes, kind = np.unique(calls.template * 2 + (calls.microbatch < 0), return_inverse=True)
    kinds = [(code // 2, code % 2 == 1) for code in codes.tolist()]
    follows = _followed(calls.templates, kinds, summaries)
    events = [
        [event for event in summaries[number].events if follows((number, of_step), event)]
        for number, of_step in kinds
    ]
    touches = _touches(calls, kind, kinds, events)
    pairs = _pairs(touches)
    return pairs is not None and _Order(calls, summaries).holds(*pairs)


def _followed(
    templates: Sequence[Template], kinds: Sequence[Kind], summaries: Sequence[Summary]
) -> Callable[[Kind, Event], bool]:
    """Return what tells whether an event has to be followed from call to call.

    Tensors that nobody makes are there throughout. Of those that only passes touch, all in the
    same way, as what the segments of a stage save, one stands for all.
    """
    made = {
        (tensor.name, of_step or entry.shift is None or tensor.name.is_one_at_a_time)
        for number, of_step in kinds
        for entry in templates[number].entries
        for tensor in entry.task.allocates
    }
    touched: dict[TensorName, list[tuple[int, Touch, int | None]]] = {}
    beside: set[TensorName] = set()  # names that communication touches
    for position, (number, _) in enumerate(kinds):
        for event in summaries[number].events:
            name, shift = event.symbol
            touched.setdefault(name, []).append((position, event.touch, shift))
            if templates[number].entries[event.number].task.stream != COMPUTE_STREAM:
                beside.add(name)
    first: dict[tuple[tuple[int, Touch, int | None], ...], TensorName] = {}
    stands = {name for name, how in touched.items() if first.setdefault(tuple(how), name) == name}

    def follows(kind: Kind, event: Event) -> bool:
        name, shift = event.symbol
        exists = event.touch is not Touch.READ or (name, kind[1] or shift is None) in made
        return exists and (name in stands or name in beside)

    return follows


class _Touches(NamedTuple):
    """All touches of tensors by calls, ordered by tensor, for each in the order of the list.

    Attributes:
        tensor: the number of the tensor.
        makes, frees: whether it is made or freed.
        beside: whether communication reads it.
        call: which call does it.
        entry: which entry, of those of all templates.
    """

    tensor: Integers
    makes: npt.NDArray[np.bool_]
    frees: npt.NDArray[np.bool_]
    beside: npt.NDArray[np.bool_]
    call: Integers
    entry: Integers


def _touches(
    calls: CallColumns, kind: Integers, kinds: Sequence[Kind], events: Sequence[Sequence[Event]]
) -> _Touches:
    """Return everything that the calls of a list do to the tensors that are followed."""
    names: dict[TensorName, int] = {}
    rows: list[tuple[int, bool, bool, int, bool, bool, bool, int]] = []
    for (number, of_step), mine in zip(kinds, events, strict=True):
        entries, first = calls.templates[number].entries, int(calls.first[number])
        for event in mine:
            name, shift = event.symbol
            makes, frees = event.touch is Touch.MAKE, event.touch is Touch.FREE
            beside = entries[event.number].task.stream != COMPUTE_STREAM
            rows.append(
                (
                    names.setdefault(name, len(names)),
                    name.is_one_at_a_time,
                    shift is None or of_step,
                    shift or 0,
                    makes,
                    frees,
                    beside and not makes and not frees,
                    first + event.number,
                )
            )
    columns = np.array(rows, dtype=np.int64).reshape(-1, 8).T
    counts = np.array([len(mine) for mine in events], dtype=np.int64)
    begins = np.cumsum(counts) - counts
    of_call = counts[kind]
    call = np.repeat(np.arange(of_call.size), of_call)
    row = np.arange(call.size) + np.repeat(begins[kind] - np.cumsum(of_call) + of_call, of_call)
    name, is_one, in_step, shift, _, _, _, entry = columns[:, row]
    microbatch = np.where(in_step == 1, -1 - calls.step[call], calls.microbatch[call] + shift)
    microbatch[is_one == 1] = 0  # there is one at a time, whatever the step
    lowest = int(microbatch.min(initial=0))
    span = int(microbatch.max(initial=0)) - lowest + 1
    tensor = name * span + microbatch - lowest
    order = np.argsort(tensor, kind="stable")
    makes, frees, beside = columns[4:7, row[order]].astype(bool)
    return _Touches(tensor[order], makes, frees, beside, call[order], entry[order])


Pairs = tuple[Integers, Integers, Integers, Integers]
"""Calls and entries that must have ended, and those that start after them."""


def _pairs(touches: _Touches) -> Pairs | None:
    """Return what must come before what; None: a tensor is not made and freed in turn.

    A maker comes before all that read and free the tensor, a reader before the one that frees it.
    """
    tensor, makes, frees, beside, call, entry = touches
    other = tensor[1:] != tensor[:-1]
    begins, ends = np.append(True, other)[: tensor.size], np.append(other, True)[: tensor.size]
    behind_free = np.append(True, frees[:-1])[: tensor.size]
    if (makes != (begins | behind_free)).any() or not frees[ends].all():
        return None
    numbers = np.arange(tensor.size)
    owner = np.maximum.accumulate(np.where(makes, numbers, 0))
    freed_by = np.minimum.accumulate(np.where(frees, numbers, tensor.size)[::-1])[::-1]
    users, readers = np.flatnonzero(~makes), np.flatnonzero(beside)
    first = np.concatenate([owner[users], readers])
    second = np.concatenate([users, freed_by[readers]])
    differ = (call[first] != call[second]) | (entry[first] != entry[second])
    first, second = first[differ], second[differ]
    return call[first], entry[first], call[second], entry[second]


class _Order:
    """Tells which entries of which calls have surely ended when another one starts."""

    def __init__(self, calls: CallColumns, summaries: Sequence[Summary]) -> None:
        self._calls, self._summaries = calls, summaries
        streams: dict[Stream, int] = {COMPUTE_STREAM: 0}
        self._stream = np.array(
            [
                streams.setdefault(entry.task.stream, len(streams))
                for template in calls.templates
                for entry in template.entries
            ],
            dtype=np.int64,
        )

    def holds(self, calls: Integers, entries: Integers, others: Integers, behind: Integers) -> bool:
        """Tell whether each entry of a call has ended when the other one, listed later, starts."""
        streams = self._stream
        certain = (streams[entries] == 0) | (
            (calls != others) & (streams[entries] == streams[behind])
        )
        left = np.flatnonzero(~certain)
        if not left.size:
            return True
        calls, entries, others, behind = (c[left] for c in (calls, entries, others, behind))
        settled = self._settled()
        count = streams.size
        codes = (entries * count + behind) * 2 + (calls == others)
        kinds, of_kind = np.unique(codes, return_inverse=True)
        position = self._calls.begin[calls] + self._calls.place[entries]
        certain = settled[position] < others
        for kind, code in enumerate(kinds.tolist()):
            (entry, later), inside = divmod(code // 2, count), code % 2
            mine = np.flatnonzero((of_kind == kind) & ~certain)
            if not mine.size:
                continue
            template, number = self._of(later)
            past = self._summaries[template].past[number]
            if inside:
                if not past >> self._of(entry)[1] & 1:
                    return False
                continue
            first = int(self._calls.first[template])
            if any(streams[first + before] == streams[entry] for before in bits(past)):
                continue
            named = bits(self._summaries[template].arguments[number])
            rows = np.searchsorted(self._calls.of_template(template), others[mine])
            if not named:
                return False
            given = self._calls.arguments(template)[rows][:, named]
            if not (given == position[mine][:, None]).any(axis=1).all():
                return False
        return True

    def _of(self, entry: int) -> tuple[int, int]:
        """Return the template of an entry, and its number there."""
        template = int(np.searchsorted(self._calls.first, entry, side="right")) - 1
        return template, entry - int(self._calls.first[template])

    def _settled(self) -> Integers:
        """Return, by position, the call after which nothing need ask whether it has ended."""
        calls = self._calls
        found = np.full(len(calls), np.iinfo(np.int64).max)
        for template, summary in enumerate(self._summaries):
            mine = calls.of_template(template)
            if summary.settles:
                given = calls.arguments(template)[:, summary.settles]
                np.minimum.at(found, given.ravel(), np.repeat(mine, given.shape[1]))
            if summary.settled:
                places = calls.place[calls.first[template] + np.array(summary.settled)]
                block = calls.begin[mine][:, None] + places
                found[block] = np.minimum(found[block], mine[:, None])
        return found

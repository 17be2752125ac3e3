"""Columns of passes say what messages a rank sends, and when its receives are posted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from simulator.strategies.schedules.passes import (
    Pass,
    backward,
    backward_input,
    backward_weight,
    forward,
)
from simulator.strategies.stages.pass_columns import PassColumns

ENDS = {0: SimpleNamespace(next_rank=1, previous_rank=None)}
MIDDLE = {1: SimpleNamespace(next_rank=2, previous_rank=0)}
LOCAL = {0: SimpleNamespace(next_rank=0, previous_rank=None)}


def started(columns: PassColumns, numbers: np.ndarray) -> list[Pass]:
    """Return the passes of a rank that messages with these numbers start."""
    return [columns.passes[columns.start.tolist().index(number)] for number in numbers.tolist()]


def test_messages_start_passes_of_the_neighbours() -> None:
    first = PassColumns([forward(0, 0), forward(0, 1), backward(0, 0), backward(0, 1)], 3)
    passes = [forward(1, 1), forward(1, 0), backward_input(1, 0), backward_weight(1, 0)]
    middle = PassColumns(passes, 3)
    assert list(first.sent(0, ENDS)) == [1]
    assert started(middle, first.sent(0, ENDS)[1]) == [forward(1, 0), forward(1, 1)]
    assert list(middle.sent(1, MIDDLE)) == [2, 0]
    assert started(first, middle.sent(1, MIDDLE)[0]) == [backward(0, 0)]
    assert first.sent(0, LOCAL) == {}


def posts(passes: list[Pass], *incoming: list[Pass]) -> list[list[Pass]]:
    """Return the passes whose receives are posted before each pass, and after the last one."""
    columns = PassColumns(passes, 3)
    numbers = [PassColumns(sent, 3).start for sent in incoming]
    which, begin = columns.posted(numbers)
    assert len(begin) == len(passes) + 2
    return [
        [passes[position] for position in which[begin[place] : begin[place + 1]]]
        for place in range(len(passes) + 1)
    ]


F, B = [forward(1, m) for m in range(3)], [backward(1, m) for m in range(3)]


def test_receives_are_posted_one_pass_ahead() -> None:
    passes = [F[0], F[1], B[0], F[2], B[1], B[2]]
    assert posts(passes, F, B) == [[F[0], F[1]], [B[0]], [F[2]], [B[1]], [B[2]], [], []]


def test_receives_are_posted_in_the_order_in_which_their_peer_sends() -> None:
    """The message for the first pass comes last: all are posted before it."""
    assert posts([F[0], B[0], F[1]], [F[1], F[0]])[0] == [F[1], F[0]]


def test_what_no_pass_needs_is_not_posted() -> None:
    assert posts([F[0]], [F[0], F[1]]) == [[F[0]], []]
    assert posts([], F) == [[]]

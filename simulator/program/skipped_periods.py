"""Periods that a walk has skipped, and the times of what was in them and behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulator.program.columns import Integers
from simulator.program.repetition import Repetition
from simulator.program.walk import Floats


class Skip(NamedTuple):
    """Periods that were skipped at one moment of a walk.

    Attributes:
        head: by stream, the index of the first instruction that is skipped.
        shift: by stream, the number of instructions of a period.
        periods: how many were skipped.
        seconds: of a period.
        end: by uid, when instructions ended before that moment; -1: they had not.
    """

    head: Integers
    shift: Integers
    periods: int
    seconds: float
    end: Floats


def blocks(skip: Skip, repetition: Repetition) -> list[tuple[Integers, Integers]]:
    """Return, by stream, the uids of the last period and of those skipped, a row each."""
    found = []
    for first, head, shift in zip(
        repetition.first.tolist(), skip.head.tolist(), skip.shift.tolist(), strict=True
    ):
        if shift:
            begin = first + head
            rows = repetition.order[begin : begin + shift * skip.periods]
            found.append((repetition.order[begin - shift : begin], rows.reshape(-1, shift)))
    return found


def put_right(columns: Floats, skips: Sequence[Skip], repetition: Repetition) -> None:
    """Write down when skipped instructions happen, and move what is behind them.

    Args:
        columns: rows of when every instruction is posted, starts and ends, as if none had been
            skipped; what had ended when some were may have been given another end since.
        skips: in the order in which they were made.
        repetition: the streams of the program.
    """
    end = columns[2]
    for skip in reversed(skips):
        past = (repetition.index < skip.head[repetition.stream]) & (skip.end >= 0)
        end[past] = skip.end[past]
    for skip in skips:
        behind = skip.head + skip.shift * skip.periods
        later = (repetition.index >= behind[repetition.stream]) & (end >= 0)
        columns[:, later] += skip.periods * skip.seconds
        numbers = np.arange(1, skip.periods + 1)[:, None]
        for source, target in blocks(skip, repetition):
            columns[:, target] = columns[:, source][:, None, :] + numbers * skip.seconds

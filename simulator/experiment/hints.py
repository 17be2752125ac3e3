"""A refusal suggests the nearest value that works: one that every check accepts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError

_is_trial: ContextVar[bool] = ContextVar("is_trial", default=False)
"""True while the experiment that is refused is itself a trial, whose message nobody reads."""


def divisors_near(number: int, wanted: int) -> list[int]:
    """Return divisors of `number`, nearest to `wanted` first; of two equally near, the smaller.

    All that are not farther away than 1 is are among them.
    """
    # 1 is wanted - 1 away, so nothing over twice that is nearer; large divisors come in pairs
    # with small ones.
    small = range(1, min(math.isqrt(number), 2 * wanted) + 1)
    found = {n for low in small if number % low == 0 for n in (low, number // low)}
    return sorted(found, key=lambda n: (abs(n - wanted), n))


def multiples_near(number: int, wanted: int) -> list[int]:
    """Return positive multiples of `number`, nearest to `wanted` first; of two, the smaller."""
    middle = round(wanted / number)
    found = [n * number for n in range(max(1, middle - 32), middle + 33)]
    return sorted(found, key=lambda n: (abs(n - wanted), n))


def works(experiment: Experiment, table: str, key: str, value: Any) -> bool:
    """Tell whether `experiment` with another value passes all checks."""
    trial = _is_trial.set(True)
    try:
        changed = getattr(experiment, table).model_copy(update={key: value})
        experiment.model_copy(update={table: changed})
    except ExperimentError:
        return False
    finally:
        _is_trial.reset(trial)
    return True


def nearest_that_works(
    experiment: Experiment, table: str, key: str, candidates: Iterable[int]
) -> str:
    """Return the end of a refusal: the first candidate with which all checks pass, if any does."""
    if _is_trial.get():
        return ""
    for value in candidates:
        if works(experiment, table, key, value):
            return f"nearest that works: {value}"
    return f"no other {table}.{key} works with the rest of the experiment"

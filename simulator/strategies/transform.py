"""A transform is one step of lowering: a function from a plan to the same plan, further on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from simulator.experiment.experiment import Experiment
from simulator.strategies.lowered import Lowered


def always(experiment: Experiment) -> bool:
    """Tell that every plan needs this."""
    return True


class Transform(NamedTuple):
    """One step of lowering.

    Attributes:
        summary: what it does, in a line.
        apply: the function that does it.
        applies: tells whether an experiment asks for it.
    """

    summary: str
    apply: Callable[[Lowered], Lowered]
    applies: Callable[[Experiment], bool] = always

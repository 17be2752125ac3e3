"""One strategy: what it is called, how to ask for it, and what of it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.experiment.check_registry import Check
from simulator.experiment.experiment import Experiment


@dataclass(frozen=True)
class Strategy:
    """One strategy that is simulated and executed.

    Attributes:
        name: what people call it.
        family: strategies of the same kind, under which it is listed.
        setting: the keys of an experiment that ask for it.
        summary: what it is, in a line.
        applies: tells whether an experiment asks for it.
        checks: what of it is refused; they stand beside the strategy.
    """

    name: str
    family: str
    setting: str
    summary: str
    applies: Callable[[Experiment], bool] = field(repr=False, compare=False)
    checks: tuple[Check, ...] = field(default=(), repr=False, compare=False)

    def to_json(self) -> dict[str, str]:
        """Return the four texts, by name."""
        return {key: getattr(self, key) for key in ("name", "family", "setting", "summary")}

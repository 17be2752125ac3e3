"""One case of ``twinline validate``: an experiment, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from simulator.experiment.experiment import Experiment


@dataclass(frozen=True)
class SuiteCase:
    """One experiment of a suite.

    Attributes:
        strategy: a short name of the strategy.
        family: strategies of one family are drawn alike.
        size: ``small``, ``large``, or the cluster that the run is paced to.
    """

    strategy: str
    family: str
    size: str
    experiment: Experiment

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return self.experiment.world_size

    @property
    def group(self) -> str:
        """The name of the cases that it is summed up with."""
        if self.experiment.run.pace is not None:
            return "paced"
        return f"{self.ranks} rank{'s' if self.ranks > 1 else ''}"

    @property
    def name(self) -> str:
        """A name that is unique in its suite, such as ``1f1b/2/small``."""
        return f"{self.strategy}/{self.ranks}/{self.size}"

    def has(self, pattern: str) -> bool:
        """Tell whether the name contains `pattern`, in which ``*`` stands for anything."""
        return fnmatchcase(self.name, f"*{pattern}*")

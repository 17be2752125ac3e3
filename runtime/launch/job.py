"""A job: what the launching process asks of the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse


@dataclass
class Job:
    """An experiment and what to do with it.

    Attributes:
        experiment: what to run.
        measure: run the iterations.
        calibrate: measure passes and transfers, in turn with the iterations.
        return_tensors: the result holds all parameters and the last gradients (tests).
        fault: (rank, instruction label or stream, kind) to inject in tests. Kinds: ``exit``,
            ``hang``, ``raise``; ``slow:FACTOR``, it takes so many times as long;
            ``delay:SECONDS``, it comes so much later than it says.
    """

    experiment: Experiment
    measure: bool = True
    calibrate: bool = False
    return_tensors: bool = False
    fault: tuple[int, str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "experiment": self.experiment.model_dump(exclude_unset=True),
            "measure": self.measure,
            "calibrate": self.calibrate,
            "return_tensors": self.return_tensors,
            "fault": self.fault,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Return the job that `to_json` wrote; the experiment is checked anew."""
        fault = data["fault"]
        return cls(
            **(data | {"experiment": parse(data["experiment"]), "fault": fault and tuple(fault)})
        )

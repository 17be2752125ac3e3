"""A job: what the launching process asks of the ranks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.strategies.plugins import absolute


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
        """Return what `from_json` reads, in a process that may be in another folder."""
        return {
            "experiment": _for_other_processes(self.experiment),
            "search_path": [str(Path(folder).absolute()) for folder in sys.path],
            "measure": self.measure,
            "calibrate": self.calibrate,
            "return_tensors": self.return_tensors,
            "fault": self.fault,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Return the job that `to_json` wrote; the experiment is checked anew."""
        data = dict(data)
        search_path = data.pop("search_path")
        sys.path += [folder for folder in search_path if folder not in sys.path]
        fault = data["fault"]
        return cls(
            **(data | {"experiment": parse(data["experiment"]), "fault": fault and tuple(fault)})
        )


def _for_other_processes(experiment: Experiment) -> dict[str, Any]:
    """Return the keys of an experiment, the paths of the user's own code made absolute."""
    data = experiment.model_dump(exclude_unset=True)
    plan = data.get("parallel", {})
    if "schedule" in plan:
        plan["schedule"] = absolute(plan["schedule"])
    if "policy" in plan:
        plan["policy"] = absolute(plan["policy"])
    if "transforms" in plan:
        plan["transforms"] = [absolute(name) for name in plan["transforms"]]
    return data

"""No experiment is made unchecked, whatever was imported before."""

from __future__ import annotations

import pickle
import subprocess
import sys

from simulator import parse


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_checks_are_imported_when_the_first_experiment_is_made() -> None:
    found = python(
        "import sys\n"
        "from simulator.experiment.experiment import Experiment\n"
        "assert 'simulator.experiment_file' not in sys.modules\n"
        "assert Experiment(parallel={'schedule': 'GPipe'}).parallel.schedule == 'gpipe'\n"
        "Experiment(parallel={'schedule': 'nonsense'})"
    )
    assert "ExperimentError: parallel.schedule = 'nonsense'" in found.stderr


def test_an_experiment_of_another_process_is_copied_with_all_checks() -> None:
    other = pickle.dumps(parse({"parallel": {"data": 2}}))
    found = python(
        f"import pickle\nexperiment = pickle.loads({other!r})\n"
        "experiment.model_copy(update={'workload': {'global_batch': 3}})"
    )
    assert "ExperimentError: workload.global_batch = 3: must be a multiple" in found.stderr


def test_without_checks_no_experiment_can_be_made() -> None:
    found = python(
        "from simulator.experiment import check_registry, experiment\n"
        "check_registry._modules.clear()\n"
        "experiment.Experiment()\n"
    )
    assert "RuntimeError: no checks of experiments are registered" in found.stderr

"""Execute programs for real with `torch.distributed`, measure and compare.

``run(experiment)`` runs one on processes of this machine; ``compare(experiment)`` also
predicts it; ``validate_suite(cases_of("quick"), folder)`` does so for many. torch is imported by
those processes only.
"""

from runtime.execution.calibrating import calibrate
from runtime.execution.comparing import Outcome, compare
from runtime.execution.results import Execution
from runtime.execution.running import run
from runtime.launch.launcher import LaunchError, Workers
from runtime.validation.suite import cases_of
from runtime.validation.validation import Validation, validate_suite

__all__ = [
    "Execution",
    "LaunchError",
    "Outcome",
    "Validation",
    "Workers",
    "calibrate",
    "cases_of",
    "compare",
    "run",
    "validate_suite",
]

"""Execute programs for real with `torch.distributed`, measure and compare.

``execute(experiment)`` runs one on processes of this machine; ``compare(experiment)`` also
predicts it; ``validate(cases_of("quick"), folder)`` does so for many. torch is imported by
those processes only.
"""

from runtime.execution import Execution, Outcome, calibrate, compare, execute
from runtime.launch.launcher import LaunchError, Workers
from runtime.validation.suite import cases_of
from runtime.validation.validation import Validation, validate

__all__ = [
    "Execution",
    "LaunchError",
    "Outcome",
    "Validation",
    "Workers",
    "calibrate",
    "cases_of",
    "compare",
    "execute",
    "validate",
]

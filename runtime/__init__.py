"""Execute programs for real with `torch.distributed`, measure and compare.

``execute(experiment)`` runs one on processes of this machine; ``compare(experiment)`` also
predicts it. torch is imported by those processes only.
"""

from runtime.execution import Execution, Outcome, calibrate, compare, execute
from runtime.launch import LaunchError, Workers

__all__ = ["Execution", "LaunchError", "Outcome", "Workers", "calibrate", "compare", "execute"]

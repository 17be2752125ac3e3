"""Transforms of the user's own, which run at the end of the chain."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.strategies.lowered import Lowered
from simulator.strategies.plugins import UserCode, load_user_code

KEY = "parallel.transforms"
GROUP = "twinline.transforms"
"""The group of entry points in which installed packages declare transforms."""

FUNCTION = "transform"
"""The name of the function, where ``parallel.transforms`` names a whole module."""


def check_transforms(experiment: Experiment) -> None:
    """Refuse a transform that there is not, or that fails when it is imported."""
    for name in experiment.parallel.transforms:
        transform_named(name)


def transform_named(name: str) -> UserCode:
    """Return the function that an entry of ``parallel.transforms`` names.

    Raises:
        ExperimentError: there is none of that name, or it is no function.
    """
    code = load_user_code(KEY, name, GROUP)
    function = code.value if callable(code.value) else getattr(code.value, FUNCTION, None)
    if not callable(function):
        raise code.mistake(f"{code.file} has no {FUNCTION}(lowered)")
    return UserCode(code.key, code.name, function, code.file)


def apply_user_transforms(lowered: Lowered) -> Lowered:
    """Apply the transforms of ``parallel.transforms``, in their order.

    Raises:
        ExperimentError: one fails, or returns something else; one line names file and line.
    """
    for name in lowered.experiment.parallel.transforms:
        code = transform_named(name)
        answer = code.call(code.value, lowered)
        if not isinstance(answer, Lowered):
            raise code.mistake(f"{code.file}: returned {answer!r}; allowed: the Lowered it makes")
        lowered = answer
    return lowered

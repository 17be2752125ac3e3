"""Transforms of the user's own, which run at the end of the chain."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
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
        for rank, instructions in answer.own_lists.items():
            if (wrong := _no_list(instructions)) is not None:
                raise code.mistake(f"{code.file}: list of rank {rank}: {wrong}")
        lowered = answer
    return lowered


def _no_list(instructions: object) -> str | None:
    """Return why something is no list of instructions that wait for others; None: it is one."""
    if not isinstance(instructions, list):
        return f"is {instructions!r}; allowed: a list of instructions"
    for instruction in instructions:
        if not isinstance(instruction, Instruction):
            return f"has a {type(instruction).__name__} in it; allowed: instructions"
        after = instruction.after
        if not isinstance(after, tuple) or not all(isinstance(one, Instruction) for one in after):
            return f"{instruction.label}: after is {after!r}; allowed: a tuple of instructions"
    return None

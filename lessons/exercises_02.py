"""Exercises of lesson 2. Replace every ``raise``, then: ``python -m lessons.check 02``."""


def bubble_fraction(ranks: int) -> float:
    """The bubble fraction of naive model parallelism over `ranks` equal stages.

    Target: 0.875 for 8.
    """
    raise NotImplementedError


def stages_for_gpt3() -> int:
    """The smallest number of H100s (85.9 GB each) that holds GPT-3, split by layers.

    Use lesson_tools.GPT_30B | {"layers": 96, "hidden": 12288, "heads": 96} with one sequence
    and the naive schedule, as ``on_h100`` in the lesson does; ``lesson_tools.fits`` tells
    whether a prediction fits.
    """
    raise NotImplementedError


def uneven_bubble() -> float:
    """The bubble fraction of four stages that take 1, 1, 1 and 5 seconds, one after the other."""
    raise NotImplementedError

"""Exercises of lesson 2. Replace every ``raise``, then: ``python -m lessons.check 02``."""


def bubble_fraction(ranks: int) -> float:
    """Of naive model parallelism over `ranks` equal stages. Target: 0.875 for 8."""
    raise NotImplementedError


def stages_for_gpt3() -> int:
    """The smallest number of H100s (80 GiB) that holds GPT-3, split by layers.

    96 layers, hidden 12288, 96 heads, otherwise as the lesson's model: one sequence, naive.
    """
    raise NotImplementedError


def uneven_bubble() -> float:
    """The bubble fraction of four stages that take 1, 1, 1 and 5 seconds."""
    raise NotImplementedError

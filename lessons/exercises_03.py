"""Exercises of lesson 3. Replace every ``raise``, then: ``python -m lessons.check 03``."""


def microbatches_for(ranks: int, bubble: float) -> int:
    """The fewest microbatches with a bubble fraction of at most `bubble`.

    Target: 133 for 8 ranks and 0.05.
    """
    raise NotImplementedError


def order(ranks: int, rank: int, microbatches: int) -> list[str]:
    """The passes of `rank` under 1F1B.

    "F0" is the forward pass of microbatch 0, "B0" its backward pass. How many forward passes
    come before the first backward?
    """
    raise NotImplementedError


def plan() -> dict[str, object]:
    """A plan, {"schedule": …, "microbatches": …}, for lesson_tools.GPT_30B on eight H100s.

    One sequence a microbatch, at most 85.9 GB a rank, and a bubble fraction of at
    most 0.16.
    """
    raise NotImplementedError

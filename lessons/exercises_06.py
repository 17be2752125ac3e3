"""Exercises of lesson 6. Replace every ``raise``, then: ``python -m lessons.check 06``."""


def received_bytes(compression: str, ranks: int, values: int, density: float) -> float:
    """Bytes that a rank receives in a ring, for "none", "fp16", "int8" or "top-k".

    The values have 4 bytes each, as their places have. Leave out the scale of int8. Only
    "top-k" needs the density, k ÷ values.

    Target: a million values on 8 ranks are 7.0e6 bytes with "none" and "int8", 3.5e6 with
    "fp16", and 0.56e6 with "top-k" and a density of 0.01.
    """
    raise NotImplementedError


def enough_gbit() -> int:
    """The smallest whole number of Gbit/s at which four machines need no int8.

    ``predict(lesson_tools.on_slow_network(plan, gbit=10.0)).iteration_time_s`` is the time of a
    step, with {} or {"compression": "int8"} as plan.
    """
    raise NotImplementedError


def top_k(
    gradients: list[float], errors: list[float], kept: int
) -> tuple[list[float], list[float]]:
    """The values that are sent in a step, with zeros for the others, and the new errors.

    `errors` are those that the step before has returned, at first zeros. Sent are the `kept`
    values of largest magnitude, of gradients and errors together.

    Target: what was sent and what is kept add up to all gradients until then, and the mean of
    what was sent is at last that of the gradients.
    """
    raise NotImplementedError

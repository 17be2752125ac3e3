"""A check is a function of the answers that returns a line of praise, or raises a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twinline import Prediction, parse, predict

H100 = {"preset": "dgx-h100"}


class Wrong(Exception):
    """The answer is not right; the message helps."""


def expect(condition: object, hint: str) -> None:
    if not condition:
        raise Wrong(hint)


def near(value: Any, target: float, tolerance: float = 0.001) -> bool:
    return abs(float(value) - target) <= tolerance * abs(target)


def simulated(
    workload: dict[str, Any], cluster: dict[str, Any] | None = None, **parallel: Any
) -> Prediction:
    return predict(parse({"workload": workload, "parallel": parallel, "cluster": cluster or H100}))


def milliseconds(prediction: Prediction) -> float:
    return 1e3 * prediction.iteration_time_s


def smallest(answer: Any, enough: Callable[[int], bool], what: str) -> str:
    """Check that `answer` is the smallest integer that is enough."""
    expect(isinstance(answer, int) and answer >= 1, f"{answer!r} is not a whole number from 1")
    expect(enough(answer), f"{answer} does not give {what}; take more")
    expect(answer == 1 or not enough(answer - 1), f"{answer - 1} gives {what} too; take fewer")
    return f"{answer} is the smallest number with {what}"

"""A cause in words: the change of its instructions in the unit that says most."""

from __future__ import annotations

import pytest

from simulator.analysis.cause import Cause


@pytest.mark.parametrize(
    ("change", "each_s", "adds_s", "text"),
    [
        (0.38, 0.01, 0.1, "compute of rank 1 (+38%)"),
        (-0.25, -0.01, -0.1, "compute of rank 1 (-25%)"),
        (None, 0.002, 0.1, "compute of rank 1 (+2 ms each)"),
        (12.0, 0.002, 0.1, "compute of rank 1 (+2 ms each)"),
        (0.38, 0.01, -0.1, "compute of rank 1 (-100 ms a step)"),
    ],
)
def test_words(change: float | None, each_s: float, adds_s: float, text: str) -> None:
    assert str(Cause("compute of rank 1", "compute", adds_s, change, each_s)) == text


def test_sizes_are_shares_of_compute_and_seconds_of_everything_else() -> None:
    assert Cause("", "compute", 1.0, 0.5, 0.1).size == 0.5
    assert Cause("", "compute", 1.0, None, 0.1).size == 0.1
    assert Cause("", "communication", 1.0, 0.5, 0.1).size == 0.1

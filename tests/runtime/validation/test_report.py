"""The report has every case whole, whatever the width of the terminal."""

from __future__ import annotations

import pytest
from rich.console import Console

from runtime.validation.report import line_of, print_validation
from runtime.validation.validation import Validation


@pytest.mark.parametrize("width", [80, 160])
def test_the_report_has_every_case_whole(width, row):
    found = Validation([row("context, ring", -0.12), row(error=0.5, pacing=PACING)])
    console = Console(record=True, width=width)
    print_validation(console, found)
    text = console.export_text()
    for part in ("context, ring", "-12.0%", "880 ms", "compute of rank 1 (+38%)", "3 of 40"):
        assert part in text
    assert "…" not in text
    text = " ".join(text.split())
    expected = (
        "2 ranks: median |error| 31.0%; Twinline's target ≤ 3%: not met, 28.0 points above it"
    )
    assert expected + "; 0 of 2 cases are within it or their noise floor" in text


PACING = {"executions": 40, "overran": 3, "longest_overrun_s": 0.01, "largest_ratio": 2.0}


def test_a_line_per_case(row):
    expected = "1f1b, 2 ranks, small: predicted 1.5 s, measured 1 s, error +50.0%, noise floor 1.0%"
    assert line_of(row(error=0.5)) == expected

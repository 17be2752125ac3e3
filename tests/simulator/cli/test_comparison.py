"""What the tables of a comparison say, and what they do not stress."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from simulator import load, lower, predict
from simulator.analysis.comparison import compare_timelines
from simulator.cli.comparison import print_comparison


def shown(capsys, slower: float, noise_floor: float | None, width: int = 80) -> str:
    prediction = predict(load(None))
    measured = replace(
        prediction.timeline,
        **{
            name: slower * getattr(prediction.timeline, name) for name in ("posted", "start", "end")
        },
        meta=prediction.timeline.meta | {"noise_floor": noise_floor},
    )
    found = compare_timelines(prediction.timeline, measured, lower(load(None)))
    print_comparison(
        Console(width=width), prediction, replace(prediction, recorded=measured), found
    )
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("slower", "floor", "line"),
    [
        (1.10, 0.01, "largest cause: compute of all ranks (+10%)"),
        (1.10, None, "largest cause: compute of all ranks (+10%)"),
        (1.005, 0.01, "the difference is below the noise floor, so no cause is named"),
    ],
)
def test_a_cause_is_named_if_there_is_something_to_explain(capsys, slower, floor, line) -> None:
    text = shown(capsys, slower, floor)
    assert line in text
    assert ("largest cause" in text) == line.startswith("largest")
    assert ("noise floor: 1.0%. That is half" in text) == (floor is not None)


def test_it_says_what_its_words_mean(capsys) -> None:
    text = shown(capsys, 1.1, 0.01)
    for word in ("error:", "host gaps:", "late in turn:", "remainder:", "short ones are noisy"):
        assert word in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_ends_between_a_number_and_its_unit(capsys, width: int) -> None:
    for line in shown(capsys, 1.1, 0.01, width).splitlines():
        assert not line.rstrip().endswith(tuple("0123456789")) or "│" in line

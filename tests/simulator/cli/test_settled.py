"""Rates, staleness and bytes by link, in words and tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from simulator.analysis.link_bytes import LinkBytes
from simulator.analysis.rates import Rates
from simulator.cli.settled import (
    bars,
    print_links,
    print_staleness,
    rates_line,
    staleness_line,
    whole_staleness,
)
from simulator.program.staleness import StageStaleness

ROWS = [
    StageStaleness.of(0, [0, 1, None], worker=0, server=2),
    StageStaleness.of(0, [2, 2, 3], worker=1, server=2),
]


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=80, file=io.StringIO())


def test_rates_in_words() -> None:
    assert rates_line(Rates(12345.6, 98765.4, 81e-6)) == (
        "settled: 12,346 updates/s, one in 81 µs, 98,765 samples/s"
    )
    assert rates_line(Rates(0.25, 2.0, 4.0)).startswith("settled: 0.25 updates/s, one in 4 s, 2 s")


def test_the_staleness_of_all_workers_is_one_line() -> None:
    assert staleness_line(ROWS) == (
        "staleness: gradients are 1.60 updates behind on average, 3 at most; "
        "1 gradient came too late"
    )
    assert staleness_line([StageStaleness(0, 1, [1])]) == ""
    assert whole_staleness([StageStaleness(0, 1, [1])]) is None


def test_every_worker_has_a_row(console: Console) -> None:
    print_staleness(console, ("", ROWS))
    text = console.export_text()
    assert "worker" in text and "0 … 3" in text and "server" not in text
    assert [line.split("│")[1:4] for line in text.splitlines() if "rank" in line] == [
        [" rank 0 ", " 0.50 ", "       1 "],
        [" rank 1 ", " 2.33 ", "       3 "],
    ]
    assert "bars: how many gradients are 0 to 3 updates behind" in text
    print_staleness(console, ("", [StageStaleness(0, 0, [0], 0), StageStaleness(0, 0, [None], 1)]))
    text = console.export_text()
    assert "bars: how many gradients are 0 updates behind" in text
    assert [line.split("│")[1:4] for line in text.splitlines() if "rank" in line] == [
        [" rank 0 ", " 0.00 ", "       0 "],
        [" rank 1 ", "    – ", "       – "],  # all of its gradients came too late
    ]


def test_two_sources_stand_side_by_side_and_many_rows_are_cut(console: Console) -> None:
    many = [StageStaleness.of(0, [1], worker=rank, server=30) for rank in range(20)]
    print_staleness(console, ("predicted", many), ("measured", many))
    text = console.export_text()
    assert "predicted" in text and "measured" in text
    assert "rank 15" in text and "rank 16" not in text
    assert "… and 4 more rows (all in --json)" in text
    print_staleness(console, ("", [StageStaleness(0, 1, [1])]))
    assert console.export_text() == ""


def test_a_histogram_is_a_line_of_bars() -> None:
    assert bars([1, 0, 8, 4], 3) == "▁ █▄"
    assert bars([3], 5) == "█"
    assert bars([1] * 64, 63) == "█" * 16


def test_the_busiest_links_come_in_a_table(console: Console) -> None:
    print_links(console, [LinkBytes(f"nic:{n}.0", 4000, 8000) for n in range(10)], 2)
    text = console.export_text()
    assert "nic:7.0" in text and "nic:8.0" not in text
    assert "2 kB" in text and "4 kB" in text
    assert "… and 2 more links (all in --json)" in text

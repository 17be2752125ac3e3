"""Numbers as a person reads them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from simulator import load, predict
from simulator.cli.results import print_parts, print_result
from simulator.experiment.describe import describe_plan
from simulator.units import nbytes, percent, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (1.2345, "1.23 s"),
        (1234.5, "1234 s"),
        (0.0456, "45.6 ms"),
        (7.8e-6, "7.8 µs"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_000, "1.23 MB"), (5e12, "5 TB")],
)
def test_bytes(value: float, text: str) -> None:
    assert nbytes(value) == text


def test_percent() -> None:
    assert (percent(0.1234), percent(0.05, signed=True), percent(None)) == ("12.3%", "+5.0%", "–")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["pipeline=1", "microbatches=1"], "gpt, one rank, 1 microbatch"),
        (["pipeline=4", "microbatches=8"], "gpt, pipeline 4, 1f1b, 8 microbatches"),
        (["pipeline=1", "data=3", "microbatches=2"], "gpt, data 3, 2 microbatches"),
        (["data=2", "schedule=gpipe"], "gpt, data 2 × pipeline 2, gpipe, 4 microbatches"),
    ],
)
def test_a_plan_in_a_few_words(settings: list[str], text: str) -> None:
    assert describe_plan(load(None, [f"parallel.{s}" for s in settings])) == text


def test_the_load_of_experts_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["model=moe-gpt", "layers=2", "hidden=16", "sequence=8", "routing=zipf"]
    settings += ["capacity_factor=1.0"]
    prediction = predict(load(None, [f"workload.{setting}" for setting in settings]))
    print_result(Console(width=100), "predicted", prediction)
    line = "experts: dropped share 0.230, load of an expert of a block 0.120 to 0.480"
    assert line in capsys.readouterr().out


def test_ranks_that_read_the_same_have_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["parallel.data=9", "parallel.pipeline=1", "cluster.preset=dgx-h100"]
    print_result(Console(width=80), "predicted", predict(load(None, plan)))
    out = capsys.readouterr().out
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")] == [
        "0–8"
    ]
    print_result(Console(width=80), "predicted", predict(load(None)))
    assert "│    0 │" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_figures_are_not_torn_apart(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    parts = ["iteration 599 ms", "bubble fraction 0.208", "3,420 tokens/s", "MFU 50.9%"]
    print_parts(Console(width=width), parts)
    lines = capsys.readouterr().out.splitlines()
    assert [part for line in lines for part in line.split("   ")] == parts
    assert max(map(len, lines)) <= width
    assert len(lines) == {40: 2, 60: 2, 80: 1, 200: 1}[width]
    print_parts(Console(width=width), parts, indent="  ")
    indented = capsys.readouterr().out.splitlines()
    assert all(line.startswith("  ") and len(line) <= width for line in indented)


def test_legends_say_what_the_figures_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Console(width=80), "predicted", predict(load(None)))
    out = capsys.readouterr().out
    for word in ("bubble fraction:", "exposed comm:", "in flight:", "peak memory:", "MFU:"):
        assert word in out
    unit = ["workload.model=unit", "parallel.pipeline=2"]
    print_result(Console(width=80), "predicted", predict(load(None, unit)))
    assert "MFU" not in capsys.readouterr().out


def test_the_number_of_parameters_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(Console(width=80), "predicted", predict(load(None)))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "predicted   3.323 million parameters"
    assert second.startswith("program ")
    print_result(Console(width=80), "predicted", predict(load(None, ["workload.model=unit"])))
    assert "parameters" not in capsys.readouterr().out


def test_the_steps_of_an_iteration() -> None:
    def printed(*settings: str) -> str:
        console = Console(record=True, width=80, file=io.StringIO())
        plan = ["model=unit", "pipeline=2", "microbatches=2", *settings]
        print_result(console, "predicted", predict(load(None, plan)))
        return console.export_text()

    several = printed("schedule=pipedream", "horizon=5")
    assert "5 steps an iteration, each 66 ms on average   steady state 60 ms" in several
    assert "drained after each step 90 ms" in several
    assert "steady state" not in printed()
    assert "drained" not in printed("horizon=5")
    assert (
        describe_plan(load(None, ["horizon=5"])) == "gpt, pipeline 2, 5 steps, 1f1b, 4 microbatches"
    )

"""Long programs are not printed on a terminal unasked, and whole everywhere else."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from simulator import load, lower
from simulator.cli.app import app
from simulator.cli.program import FIRST, is_long, summary
from simulator.program.csv_text import to_csv

LONG = "parallel.microbatches=600"


def test_what_is_long() -> None:
    assert not is_long(lower(load(None)))
    assert is_long(lower(load(None, [LONG])))  # many on a rank
    many = ["parallel.data=32", "parallel.pipeline=2", "parallel.microbatches=8"]
    assert is_long(lower(load(None, many)))  # few on each of many ranks


def test_a_file_or_pipe_gets_all_of_it() -> None:
    found = CliRunner().invoke(app, ["program", "--set", LONG])
    assert found.stdout == to_csv(lower(load(None, [LONG])))
    assert "A label is stage" in found.stderr


@pytest.mark.parametrize(("flags", "whole"), [([], False), (["--all"], True)])
def test_a_terminal_gets_a_summary(monkeypatch, flags: list[str], whole: bool) -> None:
    lowered = lower(load(None, [LONG]))
    text = to_csv(lowered)
    monkeypatch.setattr("simulator.cli.program.on_terminal", lambda: True)
    found = CliRunner().invoke(app, ["program", "--set", LONG, *flags])
    assert found.exit_code == 0
    assert found.stdout == (text if whole else summary(lowered, text))


def test_the_summary_has_the_first_instructions_and_the_way_to_the_rest() -> None:
    lowered = lower(load(None, [LONG]))
    lines = summary(lowered, to_csv(lowered)).splitlines()
    assert len(lines) == 3
    first = ",".join(i.label for i in lowered.ranks[1][:FIRST])
    assert lines[1] == f"rank 1: {first}, … ({len(lowered.ranks[1]):,} in all)"
    assert "--all" in lines[2]


def test_what_comes_before_the_lists_fits_80_columns() -> None:
    settings = ["workload.model=bert", "parallel.data=16", "parallel.tensor=2", "parallel.zero=1"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    found = CliRunner().invoke(app, ["program", *arguments], env={"COLUMNS": "80"})
    assert max(map(len, found.stderr.splitlines())) <= 80
    assert found.stderr.startswith("program ")


def test_operations_beyond_passes_are_explained() -> None:
    settings = ["data=2", "compression=top-k", "density=0.5", "clip_norm=1.0"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    found = CliRunner().invoke(app, ["program", *arguments], env={"COLUMNS": "80"}).stderr
    assert "ENCODE: make what is sent of a bucket's gradients" in found
    assert "in a smaller form\n" in found  # without the link
    assert "DECODE: " in found and "NORM: " in found
    assert "\nSTEP: " not in found  # explained already
    assert "ENCODE" not in CliRunner().invoke(app, ["program"]).stderr


def test_several_steps_are_explained() -> None:
    found = CliRunner().invoke(app, ["program", "--set", "run.horizon=3"], env={"COLUMNS": "80"})
    assert "for those after the first: s1:0F0." in found.stderr
    assert "of one rank in 3 steps" in found.stderr
    assert max(map(len, found.stderr.splitlines())) <= 80
    assert "steps" not in CliRunner().invoke(app, ["program"]).stderr.partition("A label is")[0]

"""The list of strategies."""

from __future__ import annotations

import io
import json

from rich.console import Console
from typer.testing import CliRunner

from simulator.cli.app import app
from simulator.cli.strategies import print_families
from simulator.strategies.registry import OURS
from simulator.strategies.strategy import Strategy


def test_the_list_fits_a_screen_and_names_every_family_strategy_and_setting() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    print_families(console, OURS)
    text = console.export_text()
    lines = text.splitlines()
    assert len(lines) < 34  # and a prompt
    assert max(map(len, map(str.rstrip, lines))) <= 80
    words = text.replace(",", " ").split()
    for row in OURS:
        assert row.family in lines
        assert f"  {row.name} " in text or row.name in words
        assert row.setting in text or row.setting.replace(row.name, "NAME") in text


def test_brackets_of_a_setting_are_not_taken_for_colours() -> None:
    row = Strategy("mine", "of your own", 'parallel.transforms = ["mine"]', "", lambda e: False)
    console = Console(width=80, record=True, file=io.StringIO())
    print_families(console, [row])
    assert '  mine  parallel.transforms = ["mine"]' in console.export_text().splitlines()


def test_all_has_the_summaries_and_json_has_the_rows() -> None:
    details = " ".join(CliRunner().invoke(app, ["strategies", "--all"]).output.split())
    found = json.loads(CliRunner().invoke(app, ["strategies", "--json"]).output)["strategies"]
    assert found[: len(OURS)] == [row.to_json() for row in OURS]
    for row in OURS:
        assert row.name in details
        assert row.setting in details
        assert row.summary in details

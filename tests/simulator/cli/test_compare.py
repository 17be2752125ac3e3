"""Two saved timelines are compared, shown first, and drawn afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulator import load, predict
from simulator.cli.app import app
from simulator.timeline.trace import save_trace


def saved(folder: Path, slower: float = 1.1, noise_floor: float = 0.01) -> list[str]:
    """Save a prediction, and the same as if it had been measured `slower`; return the flags."""
    timeline = predict(load(None)).timeline
    save_trace(timeline, folder / "p.json")
    measured = replace(
        timeline,
        **{name: slower * getattr(timeline, name) for name in ("posted", "start", "end")},
        meta=timeline.meta | {"source": "measured", "noise_floor": noise_floor},
    )
    save_trace(measured, folder / "m.json")
    return ["--predicted", str(folder / "p.json"), "--measured", str(folder / "m.json")]


def test_json_and_picture(tmp_path: Path) -> None:
    picture = tmp_path / "c.png"
    found = CliRunner().invoke(
        app, ["compare", *saved(tmp_path), "--json", "--gantt", str(picture)]
    )
    assert found.exit_code == 0
    assert json.loads(found.stdout)["iteration_time_error"] == pytest.approx(1 / 1.1 - 1)
    assert picture.stat().st_size > 10_000


def test_a_picture_that_cannot_be_drawn_costs_no_results(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simulator.charts.chart.Chart.save", full)
    gantt = ["--gantt", str(tmp_path / "c.png")]
    found = CliRunner().invoke(app, ["compare", *saved(tmp_path), *gantt])
    assert found.exit_code == 1
    assert "largest cause: " in found.stdout
    assert found.stderr == f"twinline: {gantt[1]}: No space left on device\n"


def test_a_swapped_pair_is_refused(tmp_path: Path) -> None:
    _, predicted, _, measured = saved(tmp_path)
    found = CliRunner().invoke(app, ["compare", "--predicted", measured, "--measured", predicted])
    assert (found.exit_code, found.stdout) == (2, "")
    assert "holds a measured timeline; allowed: predicted" in found.stderr

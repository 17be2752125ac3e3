"""Pictures are written whole or not at all, in the formats that are promised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from simulator.charts.chart import STYLE, Chart, inches_of, unit_of
from simulator.charts.timeline import comparison_figure, timeline_figure
from simulator.experiment.section import ExperimentError


@pytest.mark.parametrize("name", ["a.png", "deep/er/b.SVG", "c.pdf"])
def test_files_are_written(lines, tmp_path, name):
    comparison_figure(lines.small(), lines.small(1.1, "measured"), title="$ 100 %").save(
        tmp_path / name
    )
    assert (tmp_path / name).stat().st_size > 5_000
    assert "matplotlib.pyplot" not in sys.modules


def test_one_timeline(lines, tmp_path):
    timeline_figure(lines.small()).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.png.bak", "a.jpg"])
def test_unknown_suffix_is_refused(lines, tmp_path, name):
    with pytest.raises(
        ExperimentError, match=re.escape(name) + r".*allowed: \.png, \.svg, \.pdf"
    ) as caught:
        timeline_figure(lines.small()).save(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_written_whole_or_not_at_all(lines, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("before")

    def half(chart: Chart, target, **how) -> None:
        Path(target).write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="full"):
        timeline_figure(lines.small()).save(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_a_notebook_shows_it_and_the_style_is_not_left_behind(lines):
    before = dict(matplotlib.rcParams)
    chart = timeline_figure(lines.small())
    assert isinstance(chart, Figure)
    assert chart._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert before["hatch.linewidth"] != STYLE["hatch.linewidth"]


def test_units_and_widths_are_those_of_the_text():
    assert unit_of(2.0) == (1.0, "s")
    assert unit_of(0.02) == (1e-3, "ms")
    assert unit_of(0.0) == (1e-6, "µs")
    assert inches_of([], 9.0) == 0.0
    assert inches_of(["rank 3", "d0 p1  rank 3"], 9.0) > 1.8 * inches_of(["rank 3"], 9.0)
    assert inches_of(["short\na longer line"], 9.0) == inches_of(["a longer line"], 9.0)


def test_nothing_is_said_of_a_cache_that_cannot_be_written():
    environment = os.environ | {"MPLCONFIGDIR": "/proc/none", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", "import simulator.charts.timeline"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == done.stderr == ""

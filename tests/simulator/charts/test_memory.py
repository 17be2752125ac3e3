"""Curves of memory: one a rank and timeline, with their peaks."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.charts.memory import FULL, have_memory, memory_figure
from simulator.charts.timeline import comparison_figure
from simulator.timeline.timeline import MemorySamples


def held(lines, *peaks: int):
    """A timeline whose ranks hold half their peak, then all of it from second 4 on."""
    line = lines.small()
    line.memory = [
        MemorySamples(np.array([0.0, 4.0]), np.array([peak // 2, peak])) for peak in peaks
    ]
    return line


def test_every_curve_stands_in_its_row_to_one_scale(lines):
    figure = memory_figure({"1f1b": held(lines, 400, 200), "gpipe": held(lines, 800, 200)})
    (axes,) = figure.axes
    curves = [np.asarray(line.get_ydata()) for line in axes.lines[:4]]
    heights = [[1 - curves[0], 2 - curves[1]], [1 - curves[2], 2 - curves[3]]]
    assert [[row.max() for row in rows] for rows in heights] == [
        [pytest.approx(FULL / 2), pytest.approx(FULL / 4)],
        [pytest.approx(FULL), pytest.approx(FULL / 4)],
    ]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1f1b", "gpipe"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["rank 0\npeak 400 B | 800 B", "rank 1\npeak 200 B"]


def test_a_comparison_has_them_where_there_are_some(lines):
    pair = held(lines, 4, 2), held(lines, 4, 2)
    assert len(comparison_figure(*pair).axes) == 3
    assert len(comparison_figure(lines.small(), pair[1]).axes) == 2
    assert not have_memory([lines.small()])


def test_what_cannot_be_drawn_is_refused(lines):
    other = held(lines, 4, 2)
    other.members = [0, 2]
    for timelines in ({}, {"a": lines.small()}, {"a": held(lines, 4, 2), "b": other}):
        with pytest.raises(ValueError, match="nothing to draw"):
            memory_figure(timelines)

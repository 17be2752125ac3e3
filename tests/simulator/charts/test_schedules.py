"""A panel a schedule, on one time axis; nothing is dropped without a word."""

from __future__ import annotations

import pytest

from simulator.charts.schedules import schedules_figure
from simulator.planner.schedules import PipelineSetting, axis_end, compare_schedules


def test_one_panel_a_schedule_on_one_axis() -> None:
    rows = compare_schedules(PipelineSetting(3, 6))
    timelines = {row.name: row.timeline for row in rows if row.timeline is not None}
    figure = schedules_figure(timelines, title="title", unit="F", until=axis_end(rows))
    assert len(figure.axes) == len(timelines) == len(rows)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    titles = [axes.get_title("left") for axes in figure.axes]
    for title, row in zip(titles, rows, strict=True):
        assert title.startswith(f"{row.name} — {row.iteration_time:g} F")
        assert ("underlined" in title) == (row.virtual_stages > 1)
        assert ("cut off" in title) == (row.schedule == "naive")
    assert figure.axes[-1].get_xlabel() == "time (F)"
    assert schedules_figure(timelines).axes[-1].get_xlabel() == "time (s)"
    drawn = sum(len(axes.texts) for axes in figure.axes)
    assert drawn > 14 * 2 * 3 * 6  # numbers in almost all bars
    for axes in figure.axes:
        assert all(text.get_position()[0] <= axes.get_xlim()[1] for text in axes.texts)


def test_ranks_of_their_own_and_communication_are_drawn(lines):
    plans = {"a": lines.small(), "b": lines.many(6, 9)}
    figure = schedules_figure(plans)
    assert [axes.get_ylim() for axes in figure.axes] == [(2.0, 0.0), (6.0, 0.0)]
    first, second = (axes.get_position() for axes in figure.axes)
    assert second.height > 2 * first.height
    for axes, line in zip(figure.axes, plans.values(), strict=True):
        assert "cut off" not in axes.get_title("left")
        assert len(lines.boxes(axes)) >= len(line)
    assert lines.outside(figure) == []


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        schedules_figure({})

"""A panel a timeline on one time axis, with the labels of its ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from simulator.charts.rows import by_mesh
from simulator.charts.timeline import comparison_figure, timeline_figure, timelines_figure
from simulator.experiment.mesh import AXES, Mesh
from simulator.experiment.roles import Role
from simulator.timeline.timeline import MemorySamples

F, B, SEND, RECV, REDUCE = range(5)


def test_panels_share_the_time_axis_and_the_order_of_ranks(lines):
    figure = comparison_figure(lines.small(), lines.small(1.5, "measured"), title="title")
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim()
    assert above.get_xlim()[0] == 0.0
    assert above.get_xlim()[1] > 15.0
    assert above.get_ylim() == below.get_ylim() == (2.0, 0.0)
    names = [label.get_text() for label in above.get_yticklabels()]
    assert names == [label.get_text() for label in below.get_yticklabels()] == ["rank 0", "rank 1"]
    assert above.get_position().y0 > below.get_position().y1
    assert above.get_position().x0 == below.get_position().x0
    assert above.get_title("left").startswith("predicted — 10 s")
    assert below.get_title("left").startswith("measured — 15 s")
    assert [line.get_xdata()[0] for axes in figure.axes for line in axes.lines] == [10.0, 15.0]


@pytest.mark.parametrize(
    ("seconds", "unit", "tick"), [(3e-5, "µs", "30"), (0.03, "ms", "30"), (30.0, "s", "30")]
)
def test_unit_of_the_axis(lines, seconds, unit, tick):
    figure = timeline_figure(lines.timeline(1, [(0, F, 0, 0.0, 0.0, seconds)]))
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"time ({unit})"
    assert axes.xaxis.get_major_formatter()(seconds) == tick
    assert f"{tick} {unit}" in axes.get_title("left")


@pytest.mark.parametrize(("num_ranks", "per_rank"), [(8, 7500), (512, 117), (180, 300)])
def test_many_spans_are_few_artists_of_a_picture_of_bounded_size(lines, num_ranks, per_rank):
    figure = timeline_figure(lines.many(num_ranks, per_rank))
    assert sum(len(axes.get_children()) for axes in figure.axes) < 500
    width, height = figure.get_size_inches()
    assert width * figure.dpi <= 2400
    assert height * figure.dpi <= 3200


@pytest.mark.parametrize("degrees", [{"data": 2}, {"data": 2, "pipeline": 2, "tensor": 3}])
def test_no_label_is_clipped(lines, degrees):
    ranks = int(np.prod([*degrees.values()]))
    line = lines.many(ranks, 12)
    line.meta["roles"] = [Role("trainer", Mesh(**degrees)).to_json()]
    line.memory = [MemorySamples(np.zeros(1), np.array([123_456_789]))] * ranks
    later = replace(line, memory=[MemorySamples(np.zeros(1), np.array([987_654_321]))] * ranks)
    figure = comparison_figure(line, later, title="a word " * 40)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ("d0 p1 t2  rank 5" in names) == (len(degrees) > 1)
    assert "rank 1\npeak 123 MB | 988 MB" in [
        label.get_text() for label in figure.axes[-1].get_yticklabels()
    ]
    assert lines.outside(figure) == []


def test_rows_and_their_memory_are_in_the_order_of_the_mesh(lines):
    line = lines.many(4, 3)
    mesh = Mesh(AXES[::-1], data=2, tensor=2)
    line.meta["roles"] = [Role("trainer", mesh).to_json()]
    line.memory = [MemorySamples(np.zeros(1), np.array([rank])) for rank in range(4)]
    ordered = by_mesh(line)
    assert ordered.members == [0, 2, 1, 3]
    assert [held.peak for held in ordered.memory] == ordered.members
    assert [ordered.members[row] for row in ordered.rank] == line.rank.tolist()


@pytest.mark.parametrize("roles", [None, {}, [], [{"order": 3, "degrees": {}}], ["data"]])
def test_a_trace_that_names_no_roles_is_drawn_without(lines, roles):
    line = lines.small()
    line.meta["roles"] = roles
    assert [label.get_text() for label in timeline_figure(line).axes[0].get_yticklabels()] == [
        "rank 0",
        "rank 1",
    ]


def test_rows_name_the_roles_where_there_are_several(lines):
    line = lines.many(4, 3)
    roles = Role("trainer", Mesh(data=3)), Role("server", Mesh(), 3)
    line.meta["roles"] = [role.to_json() for role in roles]
    names = [text.get_text() for text in timeline_figure(line).axes[0].get_yticklabels()]
    assert names[0] == "rank 0 (trainer 0)"
    assert names[3] == "rank 3 (server 0)"


def test_several_plans_have_titles_of_their_own_and_ranks_of_their_own(lines):
    plans = {"a": lines.small(), "b": lines.many(5, 6), "c": lines.small(2.0)}
    figure = timelines_figure(plans)
    assert [axes.get_title("left")[:3] for axes in figure.axes] == ["a —", "b —", "c —"]
    assert [axes.get_ylim() for axes in figure.axes] == [(2.0, 0.0), (5.0, 0.0), (2.0, 0.0)]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    boxes = [axes.get_position() for axes in figure.axes]
    assert boxes[1].height > 2 * boxes[0].height  # a row is as high everywhere
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))


def test_large_plans_are_a_density_and_an_excerpt_each(lines):
    plans = {"a": lines.many(3, 700), "b": lines.many(2, 600)}
    figure = timelines_figure(plans)
    assert len(figure.axes) == 4
    whole, other, part, second = figure.axes
    assert len(whole.images) == len(other.images) == 1
    assert not part.images
    assert part.get_xlim() == second.get_xlim()
    first, last = part.get_xlim()
    assert 0 <= first < last < 0.2 * plans["a"].iteration_time
    (frame,) = whole.patches
    assert (frame.get_x(), frame.get_width()) == (first, last - first)
    assert (part.get_ylim(), second.get_ylim()) == ((3.0, 0.0), (2.0, 0.0))
    assert sum(text.get_text().isdigit() for text in part.texts) > 60
    assert not figure.artists  # lines from frames to excerpts would cross the other panels
    assert len(timeline_figure(plans["a"]).artists) == 2
    assert lines.outside(figure) == []


def test_nothing_to_draw_is_refused(lines):
    with pytest.raises(ValueError, match="without spans"):
        comparison_figure(lines.small(), lines.timeline(2, []))
    with pytest.raises(ValueError, match="2 ranks with 3 ranks"):
        comparison_figure(lines.small(), lines.many(3, 6))
    with pytest.raises(ValueError, match="no timeline"):
        timelines_figure({})


def test_degenerate_timelines_are_drawn(lines, tmp_path):
    timeline_figure(lines.timeline(1, [(0, F, 0, 0.0, 0.0, 0.0)])).save(tmp_path / "instant.png")
    timeline_figure(lines.timeline(2, [(0, SEND, 0, 0.0, 1.0, 2.0)])).save(tmp_path / "message.png")
    timeline_figure(lines.timeline(2, [(1, F, -1, 0.0, 1.0, 2.0)])).save(
        tmp_path / "unnumbered.png"
    )

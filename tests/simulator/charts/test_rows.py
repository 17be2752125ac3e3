"""Every span is a bar in its place; numbers are inside their bars."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from simulator.charts import rows
from simulator.charts.timeline import timeline_figure
from simulator.experiment_file import experiment
from simulator.prediction import predict
from simulator.program.stream import Stream
from simulator.timeline.timeline import Timeline

F, B = range(2)


def test_rectangles_are_the_spans(lines):
    line = lines.small()
    left, right, top, bottom = rows.rectangles(line).T
    assert np.array_equal(left, line.start)
    assert np.array_equal(right, line.end)
    assert np.array_equal(np.floor(top), line.rank)
    assert np.all((top < bottom) & (bottom <= line.rank + 1))
    assert (bottom - top)[line.is_compute].min() > 2 * (bottom - top)[~line.is_compute].max()


def test_streams_of_a_rank_do_not_cover_one_another(lines):
    line = lines.small()
    lanes: dict[tuple[int, Stream], tuple[float, float]] = {}
    for span, (_, _, top, bottom) in enumerate(rows.rectangles(line).tolist()):
        key = int(line.rank[span]), line.kinds[line.kind[span]].stream
        assert lanes.setdefault(key, (top, bottom)) == (top, bottom)
    assert len(lanes) == 2 * 4
    ordered = sorted(lanes.values())
    assert all(above[1] <= below[0] for above, below in pairwise(ordered))


def test_every_span_is_on_the_figure(lines):
    line = lines.small()
    drawn = lines.boxes(timeline_figure(line).axes[0])
    for expected in rows.rectangles(line):
        assert np.isclose(drawn, expected).all(axis=1).any(), expected
    idle_and_waits = 2 + 2 * (2 * 2 + 1)
    assert len(drawn) == len(line) + idle_and_waits


def test_numbers_are_written_only_where_there_is_room(lines):
    def written(line: Timeline) -> int:
        texts = timeline_figure(line).axes[0].texts
        return sum(text.get_text().isdigit() for text in texts)

    assert written(lines.small()) == lines.small().is_compute.sum() == 8
    assert written(lines.many(2, 4000)) == 0


def test_a_pass_in_segments_is_numbered_once(lines):
    line = lines.timeline(1, [(0, F, 0, 0.0, 0.0, 1.0), (0, B, 0, 1.0, 1.0, 4.0)])
    line.kinds[:2] = [line.kinds[F]._replace(segment=segment) for segment in range(2)]
    texts = timeline_figure(line).axes[0].texts
    assert [text.get_position()[0] for text in texts if text.get_text() == "0"] == [2.0]


@pytest.mark.parametrize("passes", [20, 90])
def test_numbers_stay_inside_their_bars(lines, passes):
    line = lines.timeline(1, [(0, i % 2, i // 2, i, i, i + 1) for i in range(passes)])
    figure = timeline_figure(line)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    bar = np.ptp(axes.transData.transform([(0, 0), (1, 1)]), axis=0)
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    assert len(numbers) == passes
    for text in numbers:
        extent = text.get_window_extent()
        assert extent.width < bar[0]
        assert extent.height < bar[1]


def test_training_steps_are_marked_where_each_rank_begins_them():
    prediction = predict(
        experiment(model="unit", pipeline=3, microbatches=2, schedule="pipedream", horizon=3)
    )
    timeline = prediction.timeline
    (panel,) = timeline_figure(timeline).axes
    (marks,) = (c for c in panel.collections if isinstance(c, LineCollection))
    found = [(segment[0, 0], int(segment[:, 1].mean())) for segment in marks.get_segments()]
    expected = [
        (timeline.start[timeline.is_compute & (timeline.rank == r) & (timeline.step == s)].min(), r)
        for r in range(3)
        for s in (1, 2)
    ]
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(expected)))
    assert {text.get_text() for text in panel.texts} >= {"step 1", "step 2"}
    one = timeline_figure(predict(experiment(model="unit", pipeline=3)).timeline)
    assert not any(isinstance(c, LineCollection) for panel in one.axes for c in panel.collections)


def test_numbers_of_training_steps_do_not_run_into_each_other():
    timeline = predict(experiment(model="unit", horizon=60)).timeline
    figure = timeline_figure(timeline)
    figure.canvas.draw()
    (panel,) = figure.axes
    boxes = [t.get_window_extent() for t in panel.texts if t.get_text().startswith("step ")]
    assert 10 < len(boxes) < 59
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))

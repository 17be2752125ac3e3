"""A density picture shows how time is spent; its excerpt is part of the timeline."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from simulator.analysis.metrics import bubble, rank_metrics
from simulator.charts.density import (
    BACKWARD,
    COLOURS,
    COMMUNICATION,
    FORWARD,
    IDLE,
    excerpt,
    excerpt_window,
    is_large,
    time_shares,
)
from simulator.charts.timeline import timeline_figure

F, B, SEND, RECV, REDUCE = range(5)


def test_shares_by_hand(lines):
    spans = [
        (0, F, 0, 0.0, 0.0, 3.0),
        (0, SEND, 0, 2.0, 2.0, 4.0),  # one second of it beside the pass
        (0, RECV, 0, 5.0, 7.0, 8.0),  # what it waits for is idle time
        (1, B, 0, 6.0, 6.0, 8.0),
    ]
    shares = time_shares(lines.timeline(2, spans), bins=4, end=8.0)
    assert shares.shape[:2] == (2, 4)
    assert shares[0, :, FORWARD].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert shares[0, :, COMMUNICATION].tolist() == [0.0, 0.5, 0.0, 0.5]
    assert shares[0, :, IDLE].tolist() == [0.0, 0.0, 1.0, 0.5]
    assert shares[1, :, BACKWARD].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_shares_add_up_to_the_metrics(lines):
    generator = np.random.default_rng(0)
    starts = np.sort(generator.uniform(0, 50, 60))
    ends = np.minimum(starts + generator.uniform(0, 2, 60), [*starts[1:], 60.0])
    spans = [
        (rank, kind, 0, start, start, end)
        for rank in range(3)
        for start, end, kind in zip(starts, ends, generator.integers(0, 5, 60), strict=True)
    ]
    line = lines.timeline(4, spans)  # rank 3 does nothing
    shares = time_shares(line, 7, line.iteration_time)
    assert np.allclose(shares.sum(axis=2), 1.0)
    whole = shares.mean(axis=1)
    assert 1 - whole[:, :COMMUNICATION].sum(axis=1).mean() == pytest.approx(bubble(line)[0])
    for rank, row in enumerate(rank_metrics(line)):
        exposed, idle = row.exposed_comm_s / line.iteration_time, row.idle_s / line.iteration_time
        assert whole[rank, COMMUNICATION] == pytest.approx(exposed, abs=1e-12)
        assert whole[rank, IDLE] == pytest.approx(idle, abs=1e-12)


def test_more_than_two_hundred_bars_or_rows_are_large(lines):
    assert not is_large(lines.many(2, 299))  # every third span is a message
    assert is_large(lines.many(2, 303))
    assert not is_large(lines.many(200, 3))
    assert is_large(lines.many(201, 3))


def test_an_excerpt_is_cut_out_of_the_timeline(lines):
    line = lines.many(30, 900)
    window = excerpt_window([line])
    part = excerpt(line, window)
    assert part.num_ranks == window.last - window.first == len(part.members) < 30
    assert part.members == line.members[window.first : window.last]
    assert part.start.min() >= window.start
    assert part.end.max() <= window.end
    inside = (line.end > window.start) & (line.posted < window.end)
    inside &= (line.rank >= window.first) & (line.rank < window.last)
    assert len(part) == inside.sum()
    bars = np.bincount(part.rank[part.is_compute])
    assert bars.min() > 30
    assert bars.max() < 60


def test_the_excerpt_has_the_first_backward_pass(lines):
    spans = [(0, F, n, n, n, n + 1.0) for n in range(500)]
    spans += [(0, B, n, 500 + n, 500 + n, 501.0 + n) for n in range(500)]
    window = excerpt_window([lines.timeline(1, spans)])
    assert window.start < 500 < window.end


def test_every_pixel_of_a_busy_rank_is_busy(lines):
    figure = timeline_figure(lines.many(4, 12_000))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    axes = figure.axes[0]
    last = axes.lines[0].get_xdata()[0]
    for rank in range(4):
        for height, kind in ((0.9, FORWARD), (0.25, BACKWARD)):
            (left, y), (right, _) = axes.transData.transform(
                [(0, rank + height), (last, rank + height)]
            )
            row = pixels[len(pixels) - 1 - int(y), int(left) + 4 : int(right) - 4]
            near = np.abs(row - 255 * np.array(to_rgb(COLOURS[kind]))).max(axis=1) < 2
            assert near.mean() > 0.95  # all but the frame of the excerpt


def test_more_ranks_than_lines_share_them(lines):
    figure = timeline_figure(lines.many(1100, 6))
    (image,) = figure.axes[0].images
    assert image.get_extent()[2] >= 1100
    assert image.get_array().shape[0] < 3000


def test_a_picture_of_shares_says_what_heights_are(lines):
    figure = timeline_figure(lines.many(4, 12_000))
    shares, framed = figure.axes
    assert "its share of the time" in shares.get_xlabel()
    assert "share" not in framed.get_xlabel()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    label = shares.xaxis.label.get_window_extent()
    title = framed.title.get_window_extent()
    left = framed._left_title.get_window_extent()
    assert label.y0 >= max(title.y1, left.y1) or label.x0 > left.x1

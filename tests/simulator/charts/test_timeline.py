"""The pictures show what the timeline says: places, times, shared axis, few artists."""

from __future__ import annotations

import re
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection

from simulator.analysis.metrics import bubble
from simulator.charts import style
from simulator.charts import timeline as plot
from simulator.timeline.timeline import Kind, Timeline

F, B, SEND, RECV, REDUCE = range(5)
KINDS = [
    Kind("F", "F", 0, -1, "compute", -1, 0),
    Kind("B", "B", 0, -1, "compute", -1, 0),
    Kind("SEND", "SEND_F", 0, -1, "send:1", 1, 8),
    Kind("RECV", "RECV_B", 0, -1, "recv:1", 1, 8),
    Kind("ALL_REDUCE", "REDUCE_GRAD", 0, -1, "data", -1, 8),
]


def timeline(num_ranks: int, spans: list[tuple[float, ...]], source: str = "predicted") -> Timeline:
    """From (rank, kind, microbatch, posted, start, end)."""
    columns = np.array(spans, dtype=float).reshape(-1, 6).T
    rank, kind, microbatch = columns[:3].astype(np.int64)
    meta = {"source": source}
    return Timeline(num_ranks, list(KINDS), rank, kind, microbatch, *columns[3:], meta=meta)


def small(slower: float = 1.0, source: str = "predicted") -> Timeline:
    """Two ranks, two microbatches, all kinds; the last span is a message."""
    spans = []
    for rank in range(2):
        for microbatch in range(2):
            at = rank + 4.0 * microbatch
            spans += [
                (rank, F, microbatch, at, at, at + 1),
                (rank, SEND, microbatch, at + 1, at + 1.5, at + 2),
                (rank, RECV, microbatch, at, at + 1.5, at + 2),
                (rank, B, microbatch, at + 2, at + 2, at + 3.5),
            ]
        spans.append((rank, REDUCE, -1, 8.0, 9.0, 10.0))
    return timeline(2, [(*s[:3], *(slower * t for t in s[3:])) for s in spans], source)


def many(num_ranks: int, per_rank: int) -> Timeline:
    """Ranks that compute without a pause, one message beside every second pass."""
    ranks, passes = np.divmod(np.arange(num_ranks * per_rank), per_rank)
    kind = np.array([F, B, SEND])[passes % 3]
    start = passes // 3 * 2.0 + (passes % 3 == 1)
    end = start + np.where(kind == SEND, 0.5, 1.0)
    return Timeline(num_ranks, list(KINDS), ranks, kind, passes // 3, start, start, end)


def boxes(axes) -> np.ndarray:
    """Left, right, top, bottom of every rectangle on `axes`, sorted."""
    corners = [
        path.vertices[:4]
        for collection in axes.collections
        if isinstance(collection, PolyCollection)
        for path in collection.get_paths()
    ]
    both = np.array(corners)
    x, y = both[:, :, 0], both[:, :, 1]
    area = (x * np.roll(y, 1, axis=1) - y * np.roll(x, 1, axis=1)).sum(axis=1) / 2
    assert np.allclose(np.abs(area), np.ptp(x, axis=1) * np.ptp(y, axis=1))
    found = np.concatenate([both.min(axis=1), both.max(axis=1)], axis=1)[:, [0, 2, 1, 3]]
    return found[np.lexsort(found.T)]


def test_rectangles_are_the_spans():
    line = small()
    left, right, top, bottom = plot.rectangles(line).T
    assert np.array_equal(left, line.start)
    assert np.array_equal(right, line.end)
    assert np.array_equal(np.floor(top), line.rank)
    assert np.all((top < bottom) & (bottom <= line.rank + 1))
    assert (bottom - top)[line.is_compute].min() > 2 * (bottom - top)[~line.is_compute].max()


def test_streams_of_a_rank_do_not_cover_one_another():
    line = small()
    lanes: dict[tuple[int, str], tuple[float, float]] = {}
    for span, (_, _, top, bottom) in enumerate(plot.rectangles(line).tolist()):
        key = int(line.rank[span]), line.kinds[line.kind[span]].stream
        assert lanes.setdefault(key, (top, bottom)) == (top, bottom)
    assert len(lanes) == 2 * 4
    ordered = sorted(lanes.values())
    assert all(above[1] <= below[0] for above, below in pairwise(ordered))


def test_every_span_is_on_the_figure():
    line = small()
    drawn = boxes(plot._figure([line], "").axes[0])
    for expected in plot.rectangles(line):
        assert np.isclose(drawn, expected).all(axis=1).any(), expected
    idle_and_waits = 2 + 2 * (2 * 2 + 1)
    assert len(drawn) == len(line) + idle_and_waits


def test_panels_share_the_time_axis_and_the_order_of_ranks():
    figure = plot._figure([small(), small(1.5, "measured")], "title")
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
def test_unit_of_the_axis(seconds, unit, tick):
    figure = plot._figure([timeline(1, [(0, F, 0, 0.0, 0.0, seconds)])], "")
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"time ({unit})"
    assert axes.xaxis.get_major_formatter()(seconds) == tick
    assert f"{tick} {unit}" in axes.get_title("left")


def test_bubble_fraction_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 5, 60)
    spans = [(i % 3, i % 5, 0, s, s, s + rng.uniform(0, 2)) for i, s in enumerate(starts)]
    line = timeline(4, spans)  # rank 3 never computes; the others' spans overlap
    assert plot.bubble_fraction(line) == pytest.approx(bubble(line)[0], rel=1e-12)
    assert plot.bubble_fraction(timeline(1, [(0, F, 0, 0.0, 0.0, 2.0)])) == 0.0


def test_operations_are_told_apart_without_hue():
    def luminance(name: str) -> np.ndarray:
        return style.palette(style.LOOKS[name]) ** 2.2 @ (0.2126, 0.7152, 0.0722)

    assert luminance("F").min() > 1.3 * max(luminance("B").max(), luminance("I").max())
    assert np.all(luminance("I") > 1.5 * luminance("W"))
    assert luminance("STEP").max() < luminance("B").min()
    unknown = style.look_of(KINDS[SEND]._replace(op="ALL_TO_ALL"))
    assert unknown.label == "all-to-all"


def test_one_microbatch_has_one_hue():
    forward, backward = (style.palette(style.LOOKS[name])[:-1] for name in "FB")
    assert np.array_equal(forward.argmax(axis=1), backward.argmax(axis=1))
    assert len(np.unique(forward.round(3), axis=0)) == len(style.CYCLE)


def test_numbers_are_written_only_where_there_is_room():
    def written(line: Timeline) -> int:
        texts = plot._figure([line], "").axes[0].texts
        return sum(text.get_text().isdigit() for text in texts)

    assert written(small()) == small().is_compute.sum() == 8
    assert written(many(2, 4000)) == 0


def test_a_pass_in_segments_is_numbered_once():
    line = timeline(1, [(0, F, 0, 0.0, 0.0, 1.0), (0, B, 0, 1.0, 1.0, 4.0)])
    line.kinds[:2] = [line.kinds[F]._replace(segment=segment) for segment in range(2)]
    texts = plot._figure([line], "").axes[0].texts
    assert [text.get_position()[0] for text in texts if text.get_text() == "0"] == [2.0]


@pytest.mark.parametrize("passes", [20, 90])
def test_numbers_stay_inside_their_bars(passes):
    line = timeline(1, [(0, i % 2, i // 2, i, i, i + 1) for i in range(passes)])
    figure = plot._figure([line], "")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    bar = np.ptp(axes.transData.transform([(0, 0), (1, 1)]), axis=0)
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    assert len(numbers) == passes
    for text in numbers:
        extent = text.get_window_extent()
        assert extent.width < bar[0]
        assert extent.height < bar[1]


@pytest.mark.parametrize(("num_ranks", "told"), [(8, False), (512, True)])
def test_many_spans_are_few_artists_and_quick(num_ranks, told):
    line = many(num_ranks, 60_000 // num_ranks)
    began = time.perf_counter()
    figure = plot._figure([line], "")
    assert time.perf_counter() - began < 10.0  # 0.2 s where this was written
    axes = figure.axes[0]
    assert len(axes.get_children()) < 30
    assert ("communication not drawn" in axes.get_title("left")) == told
    shown = sum(len(collection.get_paths()) for collection in axes.collections)
    assert shown >= (line.is_compute.sum() if told else len(line))
    width, height = figure.get_size_inches()
    assert width * figure.dpi <= 2400
    assert height * figure.dpi <= 2400


def test_busy_ranks_look_busy_when_bars_are_narrower_than_pixels():
    figure = plot._figure([many(4, 12_000)], "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    axes = figure.axes[0]
    busy = 255 * np.concatenate([style.palette(style.LOOKS[name]) for name in "FB"])
    for rank in range(4):
        (left, y), (right, _) = axes.transData.transform([(0, rank + 0.3), (8000, rank + 0.3)])
        row = pixels[len(pixels) - 1 - int(y), int(left) + 2 : int(right) - 2]
        away = np.abs(row[:, None].astype(float) - busy).max(axis=2).min(axis=1)
        assert away.max() < 2  # every pixel is the colour of some pass


@pytest.mark.parametrize("name", ["a.png", "deep/er/b.SVG", "c.pdf"])
def test_files_are_written(tmp_path, name):
    plot.draw_comparison(small(), small(1.1, "measured"), tmp_path / name, title="$ 100 %")
    assert (tmp_path / name).stat().st_size > 5_000
    assert "matplotlib.pyplot" not in sys.modules


def test_one_timeline(tmp_path):
    plot.draw_timeline(small(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.png.bak"])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=re.escape(name) + r".*allowed: .*\.png.*\.svg") as caught:
        plot.draw_timeline(small(), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no spans"):
        plot.draw_comparison(small(), timeline(2, []), tmp_path / "a.png")
    with pytest.raises(ValueError, match="2 ranks with 3 ranks"):
        plot.draw_comparison(small(), many(3, 6), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_degenerate_timelines_are_drawn(tmp_path):
    plot.draw_timeline(timeline(1, [(0, F, 0, 0.0, 0.0, 0.0)]), tmp_path / "instant.png")
    plot.draw_timeline(timeline(2, [(0, SEND, 0, 0.0, 1.0, 2.0)]), tmp_path / "message.png")
    plot.draw_timeline(timeline(2, [(1, F, -1, 0.0, 1.0, 2.0)]), tmp_path / "unnumbered.png")

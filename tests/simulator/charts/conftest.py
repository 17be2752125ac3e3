"""Small and large timelines made by hand, and what is drawn of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.timeline.timeline import Kind, Timeline

F, B, SEND, RECV, REDUCE = range(5)
KINDS = [
    Kind(Op("F"), "F", 0, -1, COMPUTE_STREAM, -1, 0),
    Kind(Op("B"), "B", 0, -1, COMPUTE_STREAM, -1, 0),
    Kind(Op("SEND"), "SEND_F", 0, -1, Stream.send(1), 1, 8),
    Kind(Op("RECV"), "RECV_B", 0, -1, Stream.recv(1), 1, 8),
    Kind(Op("ALL_REDUCE"), "REDUCE_GRAD", 0, -1, Stream.along("data"), -1, 8),
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


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Builders of timelines, and what is on a picture."""

    def written(figure: Figure) -> list[tuple[str, Bbox]]:
        """Return every text that is drawn and where, in pixels."""
        drawn, draw = [], Text.draw
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", lambda text, to: (drawn.append(text), draw(text, to)))
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
        texts = [text for text in drawn if text.get_text().strip() and text.get_visible()]
        return [(t.get_text(), Text.get_window_extent(t, renderer).padded(-1)) for t in texts]

    def outside(figure: Figure) -> list[str]:
        """Return the texts that reach over an edge of the picture."""
        width, height = figure.canvas.get_width_height()
        return [
            text
            for text, box in written(figure)
            if box.x0 < -1 or box.x1 > width + 1 or box.y0 < -1 or box.y1 > height + 1
        ]

    return SimpleNamespace(
        timeline=timeline,
        small=small,
        many=many,
        boxes=boxes,
        kinds=KINDS,
        written=written,
        outside=outside,
    )

"""The pictures of a validation: all cases, the worst named, no text over another."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from simulator.charts import validation as plot_validation

FAMILIES = ("data parallel", "sharded", "pipeline", "tensor", "context", "experts", "precision",
            "recomputation", "optimizer", "hybrid", "one device", "paced")  # fmt: skip
GROUPS = ("2 ranks", "4 ranks", "paced")


def row(name="1f1b", error=0.0, noise=0.01, group="2 ranks", **more):
    """Of a finished case."""
    return {
        "strategy": name, "family": "pipeline", "size": "small", "ranks": 2, "group": group,
        "predicted_s": 1 + error, "measured_s": 1.0, "error": error, "noise_floor": noise,
    } | more  # fmt: skip


def many(count=100):
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        error, took = float(generator.normal(0, 0.1)), float(generator.uniform(0.01, 9.0))
        name, size = f"data × pipeline × tensor {number}", "dgx-a100-80gb"
        family, group = FAMILIES[number % len(FAMILIES)], GROUPS[number % 3]
        times = {"measured_s": took, "predicted_s": took * (1 + error), "size": size}
        rows.append(row(name, error, group=group, family=family, **times))
    return rows


def overlapping(figure: Figure, monkeypatch) -> list[tuple[str, str]]:
    """Pairs of texts on the picture that cover each other."""
    drawn, draw = [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, to: (drawn.append(text), draw(text, to)))
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [text for text in drawn if text.get_text().strip() and text.get_visible()]
    boxes = [Text.get_window_extent(text, renderer).padded(-1) for text in texts]
    width, height = figure.canvas.get_width_height()
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= -1 and box.x1 <= width + 1, text.get_text()
        assert box.y0 >= -1 and box.y1 <= height + 1, text.get_text()
    pairs = [(a, b) for a in range(len(boxes)) for b in range(a)]
    return [
        (texts[a].get_text(), texts[b].get_text()) for a, b in pairs if boxes[a].overlaps(boxes[b])
    ]


@pytest.mark.parametrize("rows", [many(), many(60), [row()], [row(error=0.9)]])
@pytest.mark.parametrize("draw", [plot_validation._scatter, plot_validation._errors])
def test_no_text_covers_another(rows, draw, monkeypatch):
    assert overlapping(draw(rows), monkeypatch) == []


def test_the_worst_are_named_and_all_are_drawn():
    rows = many()
    figure = plot_validation._scatter(rows)
    axes = figure.axes[0]
    assert sum(len(marks.get_offsets()) for marks in axes.collections[1:]) == len(rows)
    worst = sorted(rows, key=lambda r: -abs(r["error"]))[: plot_validation.MOST_LABELS]
    assert {text.get_text() for text in axes.texts} == {plot_validation._label(r) for r in worst}


def test_the_histogram_counts_every_case():
    rows = many()
    top = plot_validation._errors(rows).axes[0]
    assert sum(bar.get_height() for bar in top.patches) == len(rows)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no case"):
        plot_validation.draw_scatter([], tmp_path / "x.png")

"""The pictures of a validation: all cases, the worst named, no text over another."""

from __future__ import annotations

import numpy as np
import pytest

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


def overlapping(texts) -> list[tuple[str, str]]:
    """Pairs of texts on the picture that cover each other."""
    pairs = [(a, b) for a in range(len(texts)) for b in range(a)]
    return [(texts[a][0], texts[b][0]) for a, b in pairs if texts[a][1].overlaps(texts[b][1])]


@pytest.mark.parametrize("rows", [many(), many(60), [row()], [row(error=0.9)]])
@pytest.mark.parametrize("draw", [plot_validation.scatter_figure, plot_validation.errors_figure])
def test_no_text_covers_another(rows, draw, lines):
    figure = draw(rows)
    assert lines.outside(figure) == []
    assert overlapping(lines.written(figure)) == []


def test_the_worst_are_named_and_all_are_drawn():
    rows = many()
    figure = plot_validation.scatter_figure(rows)
    axes = figure.axes[0]
    assert sum(len(marks.get_offsets()) for marks in axes.collections[1:]) == len(rows)
    worst = sorted(rows, key=lambda r: -abs(r["error"]))[: plot_validation.MOST_LABELS]
    assert {text.get_text() for text in axes.texts} == {plot_validation._label(r) for r in worst}


def test_the_histogram_counts_every_case():
    rows = many()
    top = plot_validation.errors_figure(rows).axes[0]
    assert sum(bar.get_height() for bar in top.patches) == len(rows)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no case"):
        plot_validation.scatter_figure([])

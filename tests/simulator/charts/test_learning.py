"""The picture of learning: three panels, a line for each plan, marks where a target is reached."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.analysis.learning import Learning, LearningCurve
from simulator.charts.learning import learning_figure


def curve(name: str, end: float = 1.0, loss: float = 5.0, count: int = 30) -> LearningCurve:
    step = np.arange(1.0, count + 1)
    return LearningCurve(
        name=name,
        plan="mlp",
        cluster="laptop",
        workload="mlp",
        steps=count,
        step_points=1,
        time_s=end * step / count,
        samples=4 * step,
        bytes_sent=1e6 * step,
        loss=loss / step,
    )


def test_three_panels_have_a_line_and_a_mark_for_each_plan() -> None:
    both = Learning(curves=[curve("one"), curve("two", 2.0)], target_loss=1.0)
    figure = learning_figure(both)
    assert len(figure.axes) == 3
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "time on the cluster, s",
        "samples",
        "sent by all ranks, MB",
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    for axes in figure.axes:
        marks = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(marks) == 2
        assert all(mark.get_ydata() == 1.0 for mark in marks)


def test_looks_of_many_plans_differ_and_fit() -> None:
    many = Learning(curves=[curve(f"plan {number}") for number in range(40)])
    figure = learning_figure(many)
    lines = figure.axes[0].lines
    assert len(lines) == 40  # single losses are left out
    looks = {(str(line.get_color()), str(line._dash_pattern)) for line in lines}
    assert len(looks) == 40
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.axes[0].get_window_extent().y0


def test_axes_are_logarithmic_where_plans_are_far_apart() -> None:
    figure = learning_figure(Learning(curves=[curve("one"), curve("two", 100.0)]))
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert figure.axes[0].get_xlabel().endswith("(logarithmic)")
    assert figure.axes[0].get_yscale() == "log"


def test_what_diverges_does_not_flatten_the_others() -> None:
    wild = curve("wild")
    wild.loss[5:20] = 1e9
    wild.loss[20:] = np.nan
    figure = learning_figure(Learning(curves=[curve("tame"), wild]))
    low, high = figure.axes[0].get_ylim()
    assert 0 < low < 1
    assert high < 10


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no loss to draw"):
        learning_figure(Learning(curves=[]))

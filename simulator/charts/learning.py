"""Learning as a figure: losses of plans over time, over samples, and over bytes sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from simulator.analysis.learning import Learning, LearningCurve, Reached
from simulator.charts.chart import DPI, WIDTH, Chart, styled, unit_of
from simulator.charts.style import CYCLE, GREY
from simulator.timeline.timeline import Floats
from simulator.units import counted

COLOURS = [colour for colour in CYCLE if colour != "#F0E442"]  # a yellow line is hardly seen
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
HEIGHT, ROW = 4.3, 0.21  # inches: of the panels with their axes, of a row of the legend
FEW = 4  # so many plans may have all their losses shown behind the smoothed ones
WIDE_LOSS, WIDE_AXIS = 8.0, 25.0  # ratios from which an axis is logarithmic
BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


@styled
def learning_figure(learning: Learning, title: str = "") -> Chart:
    """Return the losses of all plans in three panels: over time, samples, and bytes sent.

    A line is a plan's smoothed loss, behind which few plans have their single losses. Circles are
    where a target is reached.

    Args:
        learning: what `learn` returns.
        title: of the picture; not given, it names the cluster.

    Raises:
        ValueError: no plan has a loss.
    """
    curves = [curve for curve in learning.curves if curve.loss.size]
    if not curves:
        raise ValueError("there is no loss to draw")
    columns = 2 if max(len(curve.name) for curve in curves) > 40 else 4
    rows = -(-len(learning.curves) // columns)
    height = HEIGHT + 0.35 + ROW * rows
    chart = Chart(figsize=(WIDTH, height), dpi=DPI)
    clusters = " and ".join(dict.fromkeys(curve.cluster for curve in curves))
    chart.suptitle(
        title or f"Loss in virtual time on {clusters}",
        y=1 - 0.12 / height, va="top", fontsize=13, fontweight="bold",
    )  # fmt: skip
    bottom = (0.75 + ROW * rows) / height
    panels = chart.subplots(1, 3, sharey=True)
    chart.subplots_adjust(left=0.06, right=0.985, bottom=bottom, top=1 - 0.55 / height, wspace=0.06)
    last_s = max(float(curve.time_s[-1]) for curve in curves)
    second, unit = unit_of(last_s)
    most = max(float(curve.bytes_sent[-1]) for curve in curves)
    byte, byte_unit = next(known for known in BYTES if most >= known[0] or known[0] == 1.0)
    for axes, name, scale, label in zip(
        panels,
        ("time_s", "samples", "bytes_sent"),
        (second, 1.0, byte),
        (f"time on the cluster, {unit}", "samples", f"sent by all ranks, {byte_unit}"),
        strict=True,
    ):
        _draw(axes, curves, learning, name, scale)
        axes.set_xlabel(label + (" (logarithmic)" if axes.get_xscale() == "log" else ""))
        axes.grid(color="#dddddd", linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    steps = curves[0].smoothing_steps
    panels[0].set_ylabel(f"loss, smoothed over at most {counted(steps, 'step')}")
    handles = [
        Line2D([], [], **_look(number), label=curve.name) for number, curve in enumerate(curves)
    ]
    chart.legend(handles=handles, loc="lower center", ncols=columns, handlelength=3.2)
    return chart


def _draw(
    axes: Axes, curves: Sequence[LearningCurve], learning: Learning, name: str, scale: float
) -> None:
    """Draw the losses of all plans over one of their columns."""
    target = learning.target_loss
    for number, curve in enumerate(curves):
        x, smoothed = getattr(curve, name) / scale, curve.smoothed
        look = _look(number)
        if len(curves) <= FEW:
            axes.plot(x, curve.loss, ".", color=look["color"], markersize=1.5, alpha=0.2)
        axes.plot(x, smoothed, **look)
        found = None if target is None else curve.reached(target)
        if found is not None and target is not None:
            at = found[Reached._fields.index(name)] / scale
            axes.plot(
                at, target, "o", color=look["color"], markersize=6, markeredgecolor="black",
                markeredgewidth=0.8, zorder=5,
            )  # fmt: skip
    if target is not None:
        axes.axhline(target, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        if name == "time_s":
            axes.annotate(
                f"target {target:g}", (0, target), xycoords=("axes fraction", "data"),
                xytext=(4, 3), textcoords="offset points", ha="left", fontsize=8, color="#555555",
            )  # fmt: skip
    low, high = _limits(curves, target)
    if low > 0 and high / low > WIDE_LOSS:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / 1.15, high * 1.1)
    else:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    lasts = [float(getattr(curve, name)[-1]) for curve in curves]
    firsts = [
        float(getattr(curve, name)[min(curve.step_points, curve.loss.size) - 1]) for curve in curves
    ]
    if min(firsts) > 0 and max(lasts) / min(lasts) > WIDE_AXIS:
        axes.set_xscale("log")
        axes.set_xlim(min(firsts) / 1.3, max(lasts) * 1.3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)


def _limits(curves: Sequence[LearningCurve], target: float | None) -> tuple[float, float]:
    """Return the least smoothed loss, and one that is enough for all but what diverges."""
    smoothed: list[Floats] = [curve.smoothed for curve in curves]
    finite = np.concatenate([values[np.isfinite(values)] for values in smoothed])
    low = float(finite.min(initial=np.inf))
    first = max(float(curve.loss[0]) for curve in curves if np.isfinite(curve.loss[0]))
    high = min(float(finite.max(initial=-np.inf)), 1.5 * first)
    if target is not None:
        low = min(low, target)
    return low, max(high, low + 1e-12)


def _look(number: int) -> dict[str, Any]:
    """Return how the line of a plan is drawn; 44 plans differ, as 11 and 4 have no divisor."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 1.7,
    }

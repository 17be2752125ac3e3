"""A validation as figures: predicted against measured times, and the errors with their noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from simulator.charts.chart import DPI, Chart, styled
from simulator.charts.style import CYCLE, GREY
from simulator.units import seconds

Rows = Sequence[dict[str, Any]]
"""Cases that did not fail, as in the JSON object of ``twinline validate``."""

BAND = 0.10  # of the error
MARKERS = "osD^vPX*<>ph"
MOST_LABELS = 8  # of the scatter
MOST_NAMES = 60  # cases; of more the errors have no names
TICKS = (1.0, 2.0, 5.0)  # times powers of ten
BIN = 0.02
GROUPS = {"1 rank": CYCLE[4], "2 ranks": CYCLE[0], "4 ranks": CYCLE[1], "paced": CYCLE[3]}


@styled
def scatter_figure(rows: Rows) -> Chart:
    """Return the picture of predicted over measured iteration times.

    Every case is a mark; those with the largest errors have their names beside them.

    Raises:
        ValueError: there is no case.
    """
    _check(rows)
    figure = Chart(figsize=(9.5, 7.7), dpi=DPI)
    axes = figure.add_axes((0.09, 0.19, 0.62, 0.765))
    measured = np.array([row["measured_s"] for row in rows])
    predicted = np.array([row["predicted_s"] for row in rows])
    low = min(measured.min(), predicted.min()) / 1.3
    high = max(measured.max(), predicted.max()) * 1.3
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - BAND), line * (1 + BAND), color=GREY, alpha=0.18, lw=0)
    axes.plot(line, line, color="black", linewidth=0.8)
    families = [*dict.fromkeys(row["family"] for row in rows)]
    for number, family in enumerate(families):
        chosen = np.array([row["family"] == family for row in rows])
        axes.scatter(
            measured[chosen], predicted[chosen], s=46, label=family, linewidth=0.6, zorder=3,
            color=CYCLE[number % len(CYCLE)], marker=MARKERS[number % len(MARKERS)],
            edgecolor="black",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        ticks = [t * 10.0**e for e in range(-7, 5) for t in TICKS if low <= t * 10.0**e <= high]
        axis.set_ticks(ticks)
        axis.set_major_formatter(FuncFormatter(lambda value, _: seconds(float(f"{value:.3g}"))))
        axis.set_minor_formatter(NullFormatter())
        axis.set_ticks([], minor=True)
    axes.grid(color="black", alpha=0.12, linewidth=0.6)
    axes.set_xlabel("measured iteration time")
    axes.set_ylabel("predicted iteration time")
    axes.set_title(f"{_count(rows)}; grey: within ±{BAND:.0%}", loc="left", fontsize=11)
    _name_worst(axes, rows, predicted, measured)
    figure.legend(loc="lower center", ncols=4, fontsize=9, bbox_to_anchor=(0.5, 0.015))
    return figure


def _name_worst(axes: Axes, rows: Rows, predicted: Any, measured: Any) -> None:
    """Write the names of the largest errors beside the axes, in the order of their marks."""
    worst = sorted(range(len(rows)), key=lambda n: -abs(rows[n]["error"]))[:MOST_LABELS]
    worst.sort(key=lambda number: predicted[number])
    for place, number in enumerate(worst):
        axes.annotate(
            _label(rows[number]),
            (measured[number], predicted[number]),
            xytext=(1.06, (place + 0.5) / len(worst)),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkB": 4}
            | {"relpos": (0.0, 0.5)},
        )


def _label(row: dict[str, Any]) -> str:
    figures = f"{row['error']:+.1%} (noise {row['noise_floor']:.1%})"
    return f"{_name(row)}\n{row['size']}: {figures}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['strategy']}, {row['ranks']} rank{'s' if row['ranks'] > 1 else ''}"


@styled
def errors_figure(rows: Rows) -> Chart:
    """Return the picture of the errors: a histogram, and below it each with its noise floor.

    Raises:
        ValueError: there is no case.
    """
    _check(rows)
    below = min(0.15 * len(rows) + 1.0, 9.5)  # inches of the lower panel
    named = len(rows) <= MOST_NAMES
    left = 0.26 if named else 0.09
    over, gap, under, above = 0.5, 0.75, 1.05, 2.4
    height = over + above + gap + below + under
    figure = Chart(figsize=(9.5, height), dpi=DPI)
    errors = np.array([row["error"] for row in rows])
    noise = np.array([row["noise_floor"] for row in rows])
    groups = [row["group"] for row in rows]
    names = [name for name in GROUPS if name in groups]
    widest = max(BIN * np.ceil((np.abs(errors).max() + 0.5 * BIN) / BIN), BAND)
    edges = np.arange(-widest, widest + BIN / 2, BIN)

    top = figure.add_axes((left, (under + below + gap) / height, 0.97 - left, above / height))
    hidden = np.abs(errors) < noise
    floor = np.zeros(edges.size - 1)
    for name in names:
        for inside in (True, False):
            chosen = np.array([group == name for group in groups]) & (hidden == inside)
            counts, _ = np.histogram(errors[chosen], edges)
            top.bar(
                edges[:-1], counts, BIN, floor, align="edge", facecolor=GROUPS[name],
                alpha=0.4 if inside else 1.0, edgecolor="white", linewidth=0.8,
            )  # fmt: skip
            floor += counts
    median, high = np.median(np.abs(errors)), np.percentile(np.abs(errors), 90)
    top.set_title(
        f"errors of {_count(rows)}: median |error| {median:.1%}, 90th percentile {high:.1%}, "
        f"{int(hidden.sum())} below their noise floor",
        loc="left",
        fontsize=11,
    )
    top.set_ylabel("cases")
    top.yaxis.set_major_locator(MaxNLocator(integer=True))

    order = np.argsort(errors, kind="stable")
    bottom = figure.add_axes((left, under / height, 0.97 - left, below / height), sharex=top)
    places = np.arange(len(rows))
    bottom.hlines(places, -noise[order], noise[order], color=GREY, alpha=0.35, linewidth=4)
    colours = [GROUPS.get(groups[number], GREY) for number in order]
    bottom.scatter(errors[order], places, s=20, c=colours, zorder=3)
    bottom.set(ylim=(-1, len(rows)))
    if named:
        bottom.set_yticks(places, [_name(rows[number]) for number in order], fontsize=7.5)
        bottom.tick_params(axis="y", length=0)
    else:
        bottom.set(yticks=[], ylabel="cases, by error")
    bottom.set_xlim(-widest, widest)  # longer noise floors are cut off
    bottom.set_xlabel("error of the iteration time: (predicted − measured) ÷ measured")
    for axes in (top, bottom):
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.grid(axis="x", color="black", alpha=0.12, linewidth=0.6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}%"))
        axes.spines[["top", "right"]].set_visible(False)
    handles: list[Any] = [Patch(facecolor=GROUPS[name], label=name) for name in names]
    handles.append(Patch(facecolor=GREY, alpha=0.4, label="pale: below its noise floor"))
    handles.append(Line2D([], [], color=GREY, alpha=0.35, linewidth=4, label="noise floor, ±"))
    figure.legend(handles=handles, loc="lower center", ncols=6, fontsize=9)
    return figure


def _count(rows: Rows) -> str:
    return f"{len(rows)} case{'s' if len(rows) > 1 else ''}"


def _check(rows: Rows) -> None:
    if not rows:
        raise ValueError("nothing to draw: no case")

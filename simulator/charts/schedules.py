"""Pipeline schedules as one figure: a flat panel each, on one time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from simulator.analysis.metrics import bubble
from simulator.charts.chart import Chart, column_of_panels, inches_of, styled, unit_of
from simulator.charts.legend import draw_legend
from simulator.charts.rows import DETAILED_SPANS, draw_rows, names_of_ranks, rectangles
from simulator.charts.style import with_spans
from simulator.timeline.timeline import Timeline

ROW_HEIGHT, LEAST_BODY, MOST_BODY = 0.2, 0.5, 1.6  # inches: a rank, all of a panel
WITH_MESSAGES = 1.7  # times as high, where messages take time
GAP = 0.36  # inches above a panel
UNDERLINE = 0.16  # of a row
PAST = 1.04  # of the last moment: where the time axis ends

Mask = npt.NDArray[np.bool_]


@styled
def schedules_figure(
    timelines: Mapping[str, Timeline],
    *,
    title: str = "",
    unit: str | None = None,
    until: float | None = None,
) -> Chart:
    """Return the picture of many schedules, the first on top.

    Communication that takes no time is not drawn.

    Args:
        timelines: by the names of their panels; each may have ranks of its own.
        title: of the whole picture.
        unit: what a second stands for; None: a second.
        until: seconds at which the time axis ends; panels that are cut off there say so.
            None: everything is shown.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not timelines or not all(map(len, timelines.values())):
        raise ValueError("nothing to draw: no timeline, or one without spans")
    lines = [*timelines.values()]
    last = until or max(line.iteration_time for line in lines) or 1e-6
    scale, unit = (1.0, unit) if unit else unit_of(last)
    parts = [
        with_spans(line, (line.is_compute | (line.end > line.posted)) & (line.end <= PAST * last))
        for line in lines
    ]
    heights = []
    for part in parts:
        row = ROW_HEIGHT * (1.0 if part.is_compute.all() else WITH_MESSAGES)
        heights.append(min(max(row * part.num_ranks, LEAST_BODY), MOST_BODY))
    left = inches_of([name for line in lines for name in names_of_ranks(line)], 9.0)
    chart, panels = column_of_panels(title, heights, left, GAP)
    detailed = sum(map(len, parts)) <= DETAILED_SPANS
    for axes, (name, line), part in zip(panels, timelines.items(), parts, strict=True):
        time = line.iteration_time
        heading = f"{name} — {time / scale:.4g} {unit}, bubble fraction {bubble(line)[0]:.3f}"
        if _is_later(line).any():
            heading += "; underlined: not the first stage of its rank"
        if time > PAST * last:
            heading += " (cut off)"
        else:
            axes.axvline(time, color="black", linestyle="--", linewidth=1.0, zorder=3)
        axes.set(xlim=(0.0, PAST * last), ylim=(line.num_ranks, 0.0))
        axes.set_title(heading, loc="left", fontsize=10)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        axes.tick_params(labelbottom=axes is panels[-1])
        draw_rows(axes, part, time, detailed)
        _underline(axes, part)
    panels[-1].set_xlabel(f"time ({unit})")
    draw_legend(chart, parts, detailed)
    return chart


def _is_later(timeline: Timeline) -> Mask:
    """Return a mask of the passes of another stage than the first of their rank."""
    stage = np.array([kind.stage for kind in timeline.kinds])[timeline.kind]
    first = np.full(timeline.num_ranks, stage.max(initial=0))
    np.minimum.at(first, timeline.rank, stage)
    later: Mask = (stage > first[timeline.rank]) & timeline.is_compute
    return later


def _underline(axes: Axes, timeline: Timeline) -> None:
    left, right, top, bottom = rectangles(timeline)[_is_later(timeline)].T
    bar = UNDERLINE * (bottom - top)
    corners = [(left, bottom - bar), (right, bottom - bar), (right, bottom), (left, bottom)]
    boxes: Any = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    axes.add_collection(PolyCollection(boxes, facecolor="black", linewidth=0.0, zorder=3))

"""All pipeline schedules as one picture: a panel each, on one time axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from simulator.charts.style import DPI, UNITS, part_of, save
from simulator.charts.timeline import (
    DETAILED_SPANS,
    LEFT,
    RIGHT,
    WIDTH,
    bubble_fraction,
    draw_legend,
    draw_rows,
    rectangles,
)
from simulator.timeline.timeline import Timeline

ROW_HEIGHT, LEAST_BODY, MOST_BODY = 0.2, 0.5, 1.6  # inches: a rank, all of a panel
OVER, ABOVE, BELOW = 0.5, 0.36, 1.15  # inches: title, panel title, time axis and legend
UNDERLINE = 0.16  # of a row
LONGEST = 2.0  # times the fastest schedule; slower ones are cut off

Mask = npt.NDArray[np.bool_]


def draw_schedules(
    timelines: dict[str, Timeline], path: str | Path, title: str, unit: str | None = None
) -> None:
    """Draw the computation of every timeline, the first on top, to the picture `path`.

    Timelines much longer than the shortest are cut off, and say so.

    Args:
        timelines: by the names of their panels, all of as many ranks.
        unit: what a second stands for; None: a second.

    Raises:
        ValueError: nothing to draw, or a suffix that matplotlib cannot write.
        OSError: `path` cannot be written.
    """
    save(path, lambda: _figure(timelines, title, unit))


def _figure(timelines: dict[str, Timeline], title: str, unit: str | None) -> Figure:
    if not timelines or not all(map(len, timelines.values())):
        raise ValueError("nothing to draw: no timeline, or one without spans")
    ranks = next(iter(timelines.values())).num_ranks
    times = [timeline.iteration_time for timeline in timelines.values()]
    last = max(time for time in times if time <= LONGEST * min(times)) or 1e-6
    seconds = next((known for known in UNITS if last >= known[0]), UNITS[-1])
    scale, unit = (1.0, unit) if unit else seconds
    body = min(max(ROW_HEIGHT * ranks, LEAST_BODY), MOST_BODY)
    height = OVER + BELOW + len(timelines) * (ABOVE + body)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    figure.suptitle(title, y=1 - 0.15 / height, va="top", fontsize=13, fontweight="bold")
    shown = [part_of(t, t.is_compute & (t.end <= 1.04 * last)) for t in timelines.values()]
    detailed = sum(map(len, shown)) <= DETAILED_SPANS
    for number, (name, timeline) in enumerate(timelines.items(), start=1):
        bottom = height - OVER - number * (ABOVE + body)
        box = (LEFT / WIDTH, bottom / height, 1 - (LEFT + RIGHT) / WIDTH, body / height)
        axes = figure.add_axes(box, xlim=(0.0, 1.04 * last), ylim=(ranks, 0.0))
        time = timeline.iteration_time
        heading = f"{name} — {time / scale:.4g} {unit}, bubble {bubble_fraction(timeline):.3f}"
        if _is_later(timeline).any():
            heading += "; underlined: not the first stage of its rank"
        if time > last:
            heading += " (cut off)"
        else:
            axes.axvline(time, color="black", linestyle="--", linewidth=1.0, zorder=3)
        axes.set_title(heading, loc="left", fontsize=10)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        axes.tick_params(labelbottom=number == len(timelines))
        draw_rows(axes, shown[number - 1], time, detailed)
        _underline(axes, shown[number - 1])
    figure.axes[-1].set_xlabel(f"time ({unit})")
    draw_legend(figure, shown, detailed)
    return figure


def _is_later(timeline: Timeline) -> Mask:
    """Spans of another stage than the first of their rank."""
    stage = np.array([kind.stage for kind in timeline.kinds])[timeline.kind]
    first = np.full(timeline.num_ranks, stage.max(initial=0))
    np.minimum.at(first, timeline.rank, stage)
    later: Mask = stage > first[timeline.rank]
    return later


def _underline(axes: Axes, timeline: Timeline) -> None:
    left, right, top, bottom = rectangles(part_of(timeline, _is_later(timeline))).T
    bar = UNDERLINE * (bottom - top)
    corners = [(left, bottom - bar), (right, bottom - bar), (right, bottom), (left, bottom)]
    boxes: Any = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    axes.add_collection(PolyCollection(boxes, facecolor="black", linewidth=0.0, zorder=3))

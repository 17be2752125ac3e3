"""Timelines as figures: one row a rank, time to the right, one panel a timeline."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

from matplotlib.axes import Axes

from simulator.analysis.metrics import bubble
from simulator.charts.arrows import arrows_of, draw_arrows, inside
from simulator.charts.chart import Chart, column_of_panels, inches_of, styled, unit_of
from simulator.charts.density import (
    draw_density,
    excerpt,
    excerpt_window,
    is_large,
    lead_to_window,
    mark_window,
)
from simulator.charts.legend import draw_legend
from simulator.charts.memory import draw_memory, have_memory, names_with_peaks
from simulator.charts.rows import DETAILED_SPANS, by_mesh, draw_rows, names_of_ranks
from simulator.timeline.timeline import Timeline

MAX_HEIGHT = 14.5  # inches of all panels
ROW_HEIGHT, DENSE_ROW_HEIGHT = 0.62, 0.4  # inches
GAP, WIDE_GAP = 0.4, 0.9  # inches above a panel: a title; a time axis, its label and a title
MOST_MEMORY = 16  # ranks; of more there are no curves of memory
TITLE_LETTERS = 110  # in a line
TITLE_PAD = (6.0, 14.0)  # points; above the names of steps, if there are any


def timeline_figure(timeline: Timeline, *, title: str = "") -> Chart:
    """Return the picture of one timeline.

    Raises:
        ValueError: the timeline has no spans.
    """
    return timelines_figure({_source(timeline): timeline}, title=title)


def comparison_figure(predicted: Timeline, measured: Timeline, *, title: str = "") -> Chart:
    """Return the picture of a prediction above a measurement of the same ranks.

    Both are on one time axis, and below them stands what each rank holds.

    Raises:
        ValueError: a timeline has no spans, or their ranks differ.
    """
    if predicted.num_ranks != measured.num_ranks:
        raise ValueError(
            f"cannot compare {predicted.num_ranks} ranks with {measured.num_ranks} ranks"
        )
    pair = {_source(timeline): timeline for timeline in (predicted, measured)}
    if len(pair) == 1:
        pair = {"predicted": predicted, "measured": measured}
    return timelines_figure(pair, title=title, memory=True)


@styled
def timelines_figure(
    timelines: Mapping[str, Timeline], *, title: str = "", memory: bool = False
) -> Chart:
    """Return the picture of several timelines on one time axis, the first on top.

    Where a row has more than 200 bars, or there are more than 200 rows, the panels show how
    each rank spends its time, and an excerpt of each is drawn bar by bar below them.

    Args:
        timelines: by the names of their panels; each may have ranks of its own.
        title: of the whole picture.
        memory: draw what each rank holds, too, if there are two timelines of the same few
            ranks.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not timelines or not all(map(len, timelines.values())):
        raise ValueError("nothing to draw: no timeline, or one without spans")
    named = {name: by_mesh(timeline) for name, timeline in timelines.items()}
    lines = [*named.values()]
    last = max(line.iteration_time for line in lines) or 1e-6
    scale, unit = unit_of(last)
    large = any(map(is_large, lines))
    window = excerpt_window(lines)
    excerpts = [excerpt(line, window) for line in lines] if large else []
    excerpts = [part for part in excerpts if len(part)]
    detailed = large or max(map(len, lines)) <= DETAILED_SPANS

    labels = [label for line in lines for label in names_of_ranks(line)]
    rest = [ROW_HEIGHT * part.num_ranks for part in excerpts]
    ranks = lines[0].num_ranks
    if memory and ranks <= MOST_MEMORY and have_memory(lines):
        rest.append(ROW_HEIGHT * ranks)
        labels += names_with_peaks(lines)
    left = inches_of(labels, 9.0)
    row = DENSE_ROW_HEIGHT if large else ROW_HEIGHT
    heights = _fitted([row * line.num_ranks for line in lines], MAX_HEIGHT - sum(rest))
    chart, panels = column_of_panels(
        fill(title, TITLE_LETTERS), [*heights, *rest], left, WIDE_GAP if large else GAP
    )
    for panel in panels:
        panel.set(xlim=(0.0, 1.04 * last))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        panel.tick_params(labelbottom=large or panel is panels[-1])
    panels[-1].set_xlabel(f"time ({unit})")
    for (name, line), panel, height in zip(named.items(), panels, heights, strict=False):
        time = line.iteration_time
        duration = f"{time / scale:.4g} {unit}"
        panel.set_ylim(line.num_ranks, 0.0)
        panel.set_title(
            f"{name} — {duration}, bubble fraction {bubble(line)[0]:.2f}",
            loc="left", fontsize=11, pad=TITLE_PAD[line.horizon > 1],
        )  # fmt: skip
        _mark_end(panel, line, duration, last)
        if large:
            heights_say = "how high a colour is: its share of the time"
            panel.set_xlabel(f"time ({unit}); {heights_say}", loc="right")
            draw_density(panel, line, time, height)
        else:
            draw_rows(panel, line, time, detailed)
            draw_arrows(panel, arrows_of(line), names_of_ranks(line), TITLE_PAD[line.horizon > 1])
    for number, part in enumerate(excerpts):
        panel = panels[len(lines) + number]
        panel.set(xlim=window[2:], ylim=(part.num_ranks, 0.0))
        panel.set_title(f"{[*named][number]}: the framed part", loc="left", fontsize=11)
        draw_rows(panel, part, lines[number].iteration_time, detailed)
        draw_arrows(panel, inside(arrows_of(lines[number]), window), names_of_ranks(part))
        mark_window(panels[number], window)
    if len(lines) == len(excerpts) == 1:  # else the lines would cross other panels
        lead_to_window(chart, panels[0], panels[1], window)
    if len(rest) > len(excerpts):
        panels[-1].set_ylim(ranks, 0.0)
        draw_memory(panels[-1], named)
    draw_legend(chart, excerpts or lines, detailed)
    return chart


def _fitted(heights: list[float], room: float) -> list[float]:
    """Return the heights, all smaller by one factor if they have no room, none below 1 inch."""
    factor = min(1.0, max(room, 0.3 * MAX_HEIGHT) / sum(heights))
    return [max(factor * height, 1.0) for height in heights]


def _source(timeline: Timeline) -> str:
    return str(timeline.meta.get("source", "timeline"))


def _mark_end(axes: Axes, timeline: Timeline, duration: str, last: float) -> None:
    """Draw where the timeline ends, with its length beside the line."""
    time = timeline.iteration_time
    axes.axvline(time, color="black", linestyle="--", linewidth=1.0, zorder=3)
    middle = timeline.num_ranks / 2
    axes.text(time + 0.003 * last, middle, duration, rotation=90, va="center")

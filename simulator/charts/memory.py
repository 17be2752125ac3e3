"""The memory of each rank over a step as a figure: one row a rank, one curve a timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from simulator.charts.chart import Chart, column_of_panels, inches_of, styled, unit_of
from simulator.charts.style import CYCLE
from simulator.experiment.roles import name_of_rank
from simulator.timeline.timeline import Timeline
from simulator.units import nbytes

FULL = 0.86  # of a row's height: the largest of all peaks
COLOURS = ("#0072B2", "#D55E00", *CYCLE[1:5])
WIDEST, THINNEST = 2.6, 1.0  # points: of the first curve, which shines out behind the last
ROW_HEIGHT, MOST_HEIGHT = 0.62, 15.0  # inches


def have_memory(timelines: Sequence[Timeline]) -> bool:
    """Return whether all timelines have curves, of the same ranks."""
    return all(
        timeline.members == timelines[0].members
        and len(timeline.memory) == timeline.num_ranks
        and any(held.peak for held in timeline.memory)
        for timeline in timelines
    )


@styled
def memory_figure(timelines: Mapping[str, Timeline], *, title: str = "") -> Chart:
    """Return the picture of what each rank holds over a step, by timeline.

    Args:
        timelines: by the names of their curves, all of the same ranks.
        title: of the whole picture.

    Raises:
        ValueError: there is nothing to draw, or the timelines are of different ranks.
    """
    lines = [*timelines.values()]
    if not lines or not have_memory(lines):
        raise ValueError("nothing to draw: no timeline, one without memory, or different ranks")
    last = max(line.iteration_time for line in lines) or 1e-6
    scale, unit = unit_of(last)
    ranks = lines[0].num_ranks
    height = min(max(ROW_HEIGHT * ranks, 1.0), MOST_HEIGHT)
    left = inches_of(names_with_peaks(lines), 8.0)
    chart, (axes,) = column_of_panels(fill(title, 110), [height], left)
    axes.set(xlim=(0.0, 1.04 * last), ylim=(ranks, 0.0), xlabel=f"time ({unit})")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
    draw_memory(axes, timelines)
    return chart


def draw_memory(axes: Axes, timelines: Mapping[str, Timeline]) -> None:
    """Draw the curves of every rank on `axes`, from the bottom of its row, to one scale."""
    lines = [*timelines.values()]
    largest = max(held.peak for line in lines for held in line.memory)
    ranks = lines[0].num_ranks
    widths = np.linspace(WIDEST, THINNEST, len(lines)) if len(lines) > 1 else [1.6]
    handles = []
    for number, line in enumerate(lines):
        colour, width = COLOURS[number % len(COLOURS)], float(widths[number])
        for row, held in enumerate(line.memory):
            times = np.append(held.times, max(line.iteration_time, *held.times[-1:]))
            height = FULL * np.append(held.nbytes, held.nbytes[-1:]) / largest
            axes.step(times, row + 1 - height, where="post", color=colour, lw=width)
        handles.append(Line2D([], [], color=colour, lw=width))
    axes.legend(
        handles,
        [*timelines],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(lines),
        borderpad=0.0,
    )
    axes.set_title(f"memory — a row is {nbytes(largest / FULL)} high", loc="left", fontsize=11)
    axes.set_yticks(np.arange(ranks) + 0.5, names_with_peaks(lines), fontsize=8)
    for row in range(1, ranks):
        axes.axhline(row, color="black", linewidth=0.5, alpha=0.35)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="black", alpha=0.12, linewidth=0.6)


def names_with_peaks(timelines: Sequence[Timeline]) -> list[str]:
    """Return the label of every row: the rank, and the peak of each timeline if they differ."""
    labels, roles = [], timelines[0].roles
    for row, member in enumerate(timelines[0].members):
        peaks = dict.fromkeys(nbytes(timeline.memory[row].peak) for timeline in timelines)
        labels.append(f"{name_of_rank(roles, member)}\npeak {' | '.join(peaks)}")
    return labels

"""What each rank holds over a step: predicted and measured curves, a row a rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from simulator.timeline.timeline import Timeline
from simulator.units import nbytes

FULL = 0.86  # of a row's height: the largest of all peaks
LOOKS = (("#0072B2", "-", 2.6), ("#D55E00", "-", 1.0))  # the first shines out beside the second


def have_memory(timelines: Sequence[Timeline]) -> bool:
    """Whether there are curves of all ranks to draw."""
    return all(
        len(timeline.memory) == timeline.num_ranks and any(m.peak for m in timeline.memory)
        for timeline in timelines
    )


def draw_memory(axes: Axes, timelines: Sequence[Timeline]) -> None:
    """Both curves of every rank on `axes`, from the bottom of its row, to one scale.

    What was measured is that of the step with the median peak, which can be longer than the
    median one.
    """
    largest = max(held.peak for timeline in timelines for held in timeline.memory)
    ranks = timelines[0].num_ranks
    names = [str(timeline.meta.get("source", "timeline")) for timeline in timelines]
    for timeline, (colour, style, width) in zip(timelines, LOOKS, strict=True):
        for row, held in enumerate(timeline.memory):
            times = np.append(held.times, max(timeline.iteration_time, *held.times[-1:]))
            height = FULL * np.append(held.nbytes, held.nbytes[-1:]) / largest
            axes.step(
                times, row + 1 - height, where="post", color=colour, linestyle=style, lw=width
            )
    lines = [Line2D([], [], color=colour, lw=width) for colour, _, width in LOOKS]
    axes.legend(lines, names, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0.0)
    axes.set_title(f"memory — a row is {nbytes(largest / FULL)} high", loc="left", fontsize=11)
    labels = []
    for row, member in enumerate(timelines[0].members):
        peaks = dict.fromkeys(nbytes(timeline.memory[row].peak) for timeline in timelines)
        labels.append(f"rank {member}\npeak {' | '.join(peaks)}")
    axes.set_yticks(np.arange(ranks) + 0.5, labels, fontsize=8)
    for row in range(1, ranks):
        axes.axhline(row, color="black", linewidth=0.5, alpha=0.35)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="black", alpha=0.12, linewidth=0.6)

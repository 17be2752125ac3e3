"""Pictures of large timelines: how each rank spends its time, and an excerpt to read.

Where a row has hundreds of bars, none of them can be told from the next. Instead every row
is cut into time bins, and each bin is filled from the bottom with the shares of time that
the rank computes, communicates and idles in it. Beside it stands a window of the same
timeline that is small enough to be drawn bar by bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import ConnectionPatch, Patch, Rectangle

from simulator.charts.chart import DPI, Chart
from simulator.charts.rows import names_of_ranks
from simulator.program.operations import BACKWARDS, Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.timeline.timeline import Floats, Kind, Timeline

MOST_BARS = 200  # of a row; with more they are not drawn one by one
MOST_ROWS = 200  # drawn one by one
LEAST_BINS, MOST_BINS = 60, 300
BARS_PER_BIN = 6.0  # fewer, and a bin says which bars fell into it, not how time is spent
EXCERPT_ROWS, EXCERPT_BARS = 8, 44
LEAST_PIXELS = 6  # of a row; several ranks share one where there are more

FORWARD, AGAIN, BACKWARD, OTHER, COMMUNICATION, IDLE = range(6)
NAMES = (
    "forward",
    "forward again",
    "backward",
    "optimizer, norm",
    "exposed communication",
    "idle",
)
# Okabe & Ito; of different lightness, so that they can be told apart without hue.
COLOURS = ("#56B4E9", "#F0E442", "#0072B2", "#000000", "#D55E00", "#E4E4E4")


class Window(NamedTuple):
    """A part of a timeline: rows [first, last), seconds [start, end]."""

    first: int
    last: int
    start: float
    end: float


def is_large(timeline: Timeline) -> bool:
    """Return whether bars are too many to be drawn one by one."""
    bars = np.bincount(timeline.rank[timeline.is_compute], minlength=timeline.num_ranks)
    return bool(bars.max(initial=0) > MOST_BARS) or timeline.num_ranks > MOST_ROWS


def time_shares(timeline: Timeline, bins: int, end: float) -> Floats:
    """Return the shares of time, shape (ranks, bins, kinds); those of a bin add up to 1.

    Kinds are those of `NAMES`. Communication counts where nothing is computed beside it. The
    bins divide the time from 0 to `end` seconds.
    """
    ranks = timeline.num_ranks
    edges = (np.linspace(0.0, end, bins + 1) + np.arange(ranks)[:, None] * end).ravel()
    kinds = np.array([_kind(kind) for kind in timeline.kinds])[timeline.kind]
    shares = np.zeros((ranks, bins, len(NAMES)))

    def covered(spans: Any) -> Floats:
        """Return the part of every bin in which at least one of the spans runs."""
        shift = timeline.rank[spans] * end
        reached = _covered_until(timeline.start[spans] + shift, timeline.end[spans] + shift, edges)
        inside: Floats = np.diff(reached.reshape(ranks, bins + 1), axis=1) * bins / end
        return inside

    for kind in (FORWARD, AGAIN, BACKWARD, OTHER):
        shares[:, :, kind] = covered(kinds == kind)
    busy = shares.sum(axis=2)
    shares[:, :, COMMUNICATION] = covered(kinds >= 0) - busy
    shares[:, :, IDLE] = 1.0 - busy - shares[:, :, COMMUNICATION]
    return np.clip(shares, 0.0, 1.0)


def _kind(kind: Kind) -> int:
    if kind.stream != COMPUTE_STREAM:
        return COMMUNICATION
    if kind.op in BACKWARDS:
        return BACKWARD
    return {Op.FORWARD: FORWARD, Op.RECOMPUTE: AGAIN}.get(kind.op, OTHER)


def _covered_until(starts: Floats, ends: Floats, times: Floats) -> Floats:
    """Return how long at least one of the intervals had lasted at each of the times."""
    if not starts.size:
        return np.zeros_like(times)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    reached = np.concatenate([[starts[0]], np.maximum.accumulate(ends)[:-1]])
    starts = np.maximum(starts, reached)
    ends = np.maximum(ends, starts)
    covered = np.cumsum(ends - starts)
    moments = np.stack([starts, ends], axis=1).ravel()
    so_far = np.stack([covered - (ends - starts), covered], axis=1).ravel()
    until: Floats = np.interp(times, moments, so_far)
    return until


def draw_density(axes: Axes, timeline: Timeline, time: float, height: float) -> None:
    """Draw how every rank spends its `time` seconds on a panel that is `height` inches high.

    The limits of `axes` are set already: seconds, and a row a rank.
    """
    ranks = timeline.num_ranks
    bars = np.bincount(timeline.rank[timeline.is_compute], minlength=ranks).max()
    bins = int(np.clip(bars / BARS_PER_BIN, LEAST_BINS, MOST_BINS))
    shares = time_shares(timeline, bins, time)
    together = -(-ranks * LEAST_PIXELS // int(height * DPI))
    starts = np.arange(0, ranks, together)
    lengths = np.diff([*starts, ranks])
    shares = np.add.reduceat(shares, starts, axis=0) / lengths[:, None, None]
    tall = max(int(height * DPI * together / ranks), LEAST_PIXELS)
    levels = (tall - 0.5 - np.arange(tall)) / tall  # of the lines of a row, from its top
    filled = np.cumsum(shares, axis=2)[:, None]  # row, line, bin, kind
    kind = (levels[None, :, None, None] >= filled).sum(axis=3).clip(max=IDLE)
    if tall > 2 * LEAST_PIXELS:
        kind[:, 0] = -1  # a white line between rows
    colours = np.array([*map(to_rgb, COLOURS), (1.0, 1.0, 1.0)])
    picture = colours[kind.reshape(-1, bins)]
    axes.imshow(
        picture,
        extent=(0.0, time, float(len(starts) * together), 0.0),
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )
    step = next(n for n in (2**i for i in range(40)) if n * height * DPI / ranks > 0.18 * DPI)
    axes.set_yticks(np.arange(0.5, ranks, step), names_of_ranks(timeline)[::step])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    used = [number for number in range(len(NAMES)) if shares[:, :, number].max() > 1e-9]
    axes.legend(
        [Patch(facecolor=COLOURS[number]) for number in used],
        [NAMES[number] for number in used],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(used),
        borderpad=0.0,
        columnspacing=1.4,
    )


def excerpt_window(timelines: Sequence[Timeline]) -> Window:
    """Return a window that can be read bar by bar: around the first backward pass.

    There a pipeline is full for the first time, and the passes begin to alternate. The window
    is chosen in the first timeline and wide enough for the slowest of them.
    """
    chosen = timelines[0]
    rows = min(chosen.num_ranks, EXCERPT_ROWS)
    passes = np.flatnonzero(chosen.of_kind(lambda kind: kind.op in BACKWARDS))
    if not passes.size:
        passes = np.arange(1)
    turn = passes[np.lexsort((chosen.rank[passes], chosen.start[passes]))[0]]
    # Among rows that reach the turn at once, as replicas do, the first.
    first = int(np.clip(chosen.rank[turn] - rows // 2, 0, chosen.num_ranks - rows))
    width = max(EXCERPT_BARS * _mean_bar(timeline) for timeline in timelines)
    last = max(timeline.iteration_time for timeline in timelines)
    start = float(np.clip(chosen.start[turn] - 0.3 * width, 0.0, max(last - width, 0.0)))
    return Window(first, first + rows, start, start + width)


def _mean_bar(timeline: Timeline) -> float:
    """Return the mean seconds of the bars of compute, each kind as often as it occurs."""
    bars = timeline.is_compute
    lengths = (timeline.end - timeline.start)[bars]
    return float(lengths.mean()) if lengths.size else timeline.iteration_time


def excerpt(timeline: Timeline, window: Window) -> Timeline:
    """Return what lies in `window`: its rows counted from 0, its spans cut at its edges."""
    first, last, start, end = window
    last = min(last, timeline.num_ranks)
    inside = (timeline.rank >= first) & (timeline.rank < last)
    inside &= (timeline.end > start) & (timeline.posted < end) & (timeline.end > timeline.posted)
    columns = {
        name: np.clip(getattr(timeline, name)[inside], start, end)
        for name in ("posted", "start", "end")
    }
    return replace(
        timeline,
        num_ranks=max(last - first, 0),
        rank=timeline.rank[inside] - first,
        kind=timeline.kind[inside],
        microbatch=timeline.microbatch[inside],
        step=timeline.step[inside],
        members=timeline.members[first:last],
        counts=timeline.counts[first:last],
        memory=[],
        **columns,
    )


def mark_window(whole: Axes, window: Window) -> None:
    """Draw a frame around `window` on the panel `whole`."""
    first, last, start, end = window
    frame = Rectangle((start, first), end - start, last - first, fill=False, lw=1.4, zorder=5)
    whole.add_patch(frame)


def lead_to_window(chart: Chart, whole: Axes, part: Axes, window: Window) -> None:
    """Draw lines from `window` on the panel `whole` to the panel `part` right below it."""
    _, last, start, end = window
    for time, corner in ((start, 0.0), (end, 1.0)):
        line = ConnectionPatch(
            (time, last), (corner, 1.0), whole.transData, part.transAxes, lw=0.8, alpha=0.6
        )
        chart.add_artist(line)

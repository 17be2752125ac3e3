"""Timelines as pictures: one row a rank, time to the right, predicted above measured.

Hue says which microbatch, lightness and hatching which operation: without colour vision
only the microbatch is lost, and the number in the bar restores it. The bars of one
operation are one collection, so that the cost is linear in the spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from simulator.analysis.metrics import union_length
from simulator.charts.memory import draw_memory, have_memory
from simulator.charts.style import (
    CYCLE,
    DPI,
    EDGES,
    IDLE,
    UNITS,
    WAITING,
    Look,
    look_of,
    looks_of,
    palette,
    part_of,
    save,
)
from simulator.experiment.mesh import Mesh, place_of
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.timeline.timeline import Floats, Timeline

WIDTH, MAX_HEIGHT, ROW_HEIGHT = 13.0, 16.0, 0.62  # inches
LEFT, RIGHT = 1.3, 0.25  # inches beside the bars
COMPUTE_LANE, COMMUNICATION_LANES = (0.06, 0.53), (0.58, 0.96)  # of a row
MOST_LANES = 6  # streams of a rank beyond that share lanes
MOST_MEMORY = 16  # ranks; of more there are no curves of memory
THINNEST_ROW = 12  # pixels; thinner rows show compute only
DETAILED_SPANS = 5_000  # with more, neither edges nor hatches: they clutter and are slow
HATCHED_PIXELS = 6  # narrower bars have no hatch
TITLE_LETTERS = 110  # in a line
MOST_NUMBERS = 400  # of an operation in a panel


def draw_timeline(timeline: Timeline, path: str | Path, *, title: str = "") -> None:
    """Draw one timeline to the picture `path`; its suffix chooses the format.

    Raises:
        ValueError: nothing to draw, or a suffix that matplotlib cannot write.
        OSError: `path` cannot be written.
    """
    save(path, lambda: _figure([by_mesh(timeline)], title))


def draw_comparison(
    predicted: Timeline, measured: Timeline, path: str | Path, *, title: str = ""
) -> None:
    """Draw `predicted` above `measured` on one time axis to the picture `path`, and below
    them what each rank holds.

    Raises as `draw_timeline` does, and ValueError for different numbers of ranks.
    """
    save(path, lambda: _figure([by_mesh(predicted), by_mesh(measured)], title))


def by_mesh(timeline: Timeline) -> Timeline:
    """The rows in the order of the mesh, so that ranks of a group lie together."""
    mesh = mesh_behind(timeline)
    if mesh is None:
        return timeline
    places = [tuple(mesh.coordinate(rank).values()) for rank in timeline.members]
    order = sorted(range(len(places)), key=places.__getitem__)
    if order == [*range(len(places))]:
        return timeline
    members = [timeline.members[row] for row in order]
    return replace(timeline, rank=np.argsort(order)[timeline.rank], members=members)


def mesh_behind(timeline: Timeline) -> Mesh | None:
    """The device mesh of the experiment that a timeline is of, if it says."""
    try:
        mesh = parse(timeline.meta["experiment"]).mesh
    except (KeyError, ExperimentError):
        return None
    return mesh if max(timeline.members, default=0) < mesh.world_size else None


def bubble_fraction(timeline: Timeline) -> float:
    """The share of ranks × iteration time in which no compute runs, 0 to 1."""
    compute, time = timeline.is_compute, timeline.iteration_time
    shift = timeline.rank[compute] * time  # ranks one after the other: one union for all
    busy = union_length(timeline.start[compute] + shift, timeline.end[compute] + shift)
    return 1.0 - busy / (timeline.num_ranks * time) if time else 0.0


def rectangles(timeline: Timeline) -> Floats:
    """Left, right (seconds), top, bottom (rows) of every span, one span a line.

    Row r, from r to r + 1, is rank r. Compute is the tall lane on top; below it every
    communication stream of the rank has a lane of its own, in order of the names. With no
    communication at all, compute fills the row.
    """
    streams, stream_of_kind = np.unique([k.stream for k in timeline.kinds], return_inverse=True)
    apart = ~timeline.is_compute
    highest, lowest = _compute_lane(timeline)
    top, bottom = timeline.rank + highest, timeline.rank + lowest
    key = timeline.rank[apart] * len(streams) + stream_of_kind[timeline.kind[apart]]
    used, place = np.unique(key, return_inverse=True)
    lane = (np.arange(used.size) - np.searchsorted(used, used - used % len(streams))) % MOST_LANES
    highest, lowest = COMMUNICATION_LANES
    height = (lowest - highest) / (lane.max(initial=0) + 1)
    top[apart] = timeline.rank[apart] + highest + lane[place] * height
    bottom[apart] = top[apart] + 0.85 * height
    return np.stack([timeline.start, timeline.end, top, bottom], axis=1)


def _compute_lane(timeline: Timeline) -> tuple[float, float]:
    return (0.0, 1.0) if timeline.is_compute.all() else COMPUTE_LANE


def _figure(timelines: Sequence[Timeline], title: str) -> Figure:
    """All panels one above the other, on one time axis, and the legend below."""
    ranks = timelines[0].num_ranks
    if not all(map(len, timelines)):
        raise ValueError("nothing to draw: the timeline has no spans")
    if timelines[-1].num_ranks != ranks:
        raise ValueError(f"cannot compare {ranks} ranks with {timelines[-1].num_ranks} ranks")
    last = max(timeline.iteration_time for timeline in timelines) or 1e-6
    scale, unit = next((known for known in UNITS if last >= known[0]), UNITS[-1])
    title = fill(title, TITLE_LETTERS)
    over, above, below = 0.1 + 0.3 * len(title.splitlines()), 0.4, 1.15  # inches: titles, rest
    body = min(max(ROW_HEIGHT * ranks, 1.0), (MAX_HEIGHT - over - below) / len(timelines) - above)
    remembers = len(timelines) > 1 and ranks <= MOST_MEMORY and have_memory(timelines)
    panels = len(timelines) + remembers
    height = over + below + panels * (above + body)
    shown = timelines
    if body * DPI / ranks < THINNEST_ROW and all(t.is_compute.any() for t in timelines):
        shown = [part_of(timeline, timeline.is_compute) for timeline in timelines]
    detailed = max(map(len, shown)) <= DETAILED_SPANS
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    figure.suptitle(title, y=1 - 0.15 / height, va="top", fontsize=13, fontweight="bold")
    for number, (timeline, part) in enumerate(zip(timelines, shown, strict=True), start=1):
        bottom = height - over - number * (above + body)
        box = (LEFT / WIDTH, bottom / height, 1 - (LEFT + RIGHT) / WIDTH, body / height)
        axes = figure.add_axes(box, xlim=(0.0, 1.04 * last), ylim=(ranks, 0.0))
        time, source = timeline.iteration_time, timeline.meta.get("source", "timeline")
        duration = f"{time / scale:.4g} {unit}"
        heading = f"{source} — {duration}, bubble fraction {bubble_fraction(timeline):.2f}"
        heading += " (communication not drawn)" if len(part) < len(timeline) else ""
        axes.set_title(heading, loc="left", fontsize=11)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        axes.tick_params(labelbottom=number == panels)
        axes.axvline(time, color="black", linestyle="--", linewidth=1.0, zorder=3)
        axes.text(time + 0.003 * last, ranks / 2, duration, rotation=90, va="center")
        draw_rows(axes, part, time, detailed)
    if remembers:
        box = (LEFT / WIDTH, below / height, 1 - (LEFT + RIGHT) / WIDTH, body / height)
        axes = figure.add_axes(box, xlim=(0.0, 1.04 * last), ylim=(ranks, 0.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        draw_memory(axes, timelines)
    figure.axes[-1].set_xlabel(f"time ({unit})")
    draw_legend(figure, shown, detailed)
    return figure


def draw_rows(axes: Axes, timeline: Timeline, time: float, detailed: bool) -> None:
    """Draw every rank's row, `time` seconds long; `detailed` means edges and hatches."""
    rows = np.arange(timeline.num_ranks)
    second, row = np.ptp(axes.transData.transform([(0, 0), (1, 1)]), axis=0)  # in pixels
    top, bottom = (rows + edge for edge in _compute_lane(timeline))
    _draw_boxes(axes, IDLE, (0.0, time, top, bottom), zorder=0)
    boxes, runs, waits = (
        rectangles(timeline),
        _runs(timeline),
        np.flatnonzero(timeline.start > timeline.posted),
    )
    middle, thin = boxes[waits, 2:].mean(axis=1), 0.1 * (boxes[waits, 3] - boxes[waits, 2])
    lines = (timeline.posted[waits], timeline.start[waits], middle - thin, middle + thin)
    _draw_boxes(axes, WAITING, lines)
    for look in looks_of([timeline]):
        spans = np.flatnonzero(timeline.of_kind(lambda kind, look=look: look_of(kind) == look))
        columns, microbatch = boxes[spans].T, timeline.microbatch[spans]
        widths = (columns[1] - columns[0]) * second
        style: dict[str, Any] = {"zorder": 2}
        if detailed:
            style["linewidth"] = np.clip(0.1 * widths, 0.0 if look.coloured else 0.3, 0.7)
            style["edgecolor"] = EDGES[look.coloured]
            style["hatch"] = look.hatch if np.median(widths) >= HATCHED_PIXELS else None
        _draw_boxes(axes, look, columns, microbatch, **style)
        if detailed and look.coloured:
            _draw_numbers(axes, look, columns, np.stack([runs[spans], microbatch]))
    step = next(n for n in (2**i for i in range(40)) if n * row > 0.18 * DPI)
    mesh = mesh_behind(timeline)
    names = [f"{place_of(mesh, n) if mesh else ''}  rank {n}".strip() for n in timeline.members]
    axes.set_yticks(((top + bottom) / 2)[::step], names[::step])
    if mesh and step == 1:
        outer = [tuple(mesh.coordinate(n).values())[:-1] for n in timeline.members]
        for row in (r for r, pair in enumerate(pairwise(outer), 1) if len({*pair}) > 1):
            axes.axhline(row, color="black", linewidth=0.5, alpha=0.35, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="black", alpha=0.12, linewidth=0.6)


def _runs(timeline: Timeline) -> Any:
    """Per span the number of its run: bars of one pass with no other compute between them."""
    names = [f"{kind.op} {kind.stage}" for kind in timeline.kinds]
    which = np.unique(names, return_inverse=True)[1][timeline.kind]
    order = np.lexsort((timeline.start, timeline.is_compute, timeline.rank))
    what = np.stack([timeline.rank, timeline.is_compute, which, timeline.microbatch])[:, order]
    runs = np.empty(len(timeline), dtype=np.int64)
    runs[order] = np.concatenate([[0], (np.diff(what, axis=1) != 0).any(axis=0).cumsum()])
    return runs


def _draw_boxes(axes: Axes, look: Look, columns: Any, microbatch: Any = -1, **style: Any) -> None:
    """One collection of rectangles: left, right, top, bottom, coloured by microbatch."""
    boxes = np.stack(np.broadcast_arrays(*columns), axis=1)
    corners: Any = boxes[:, [[0, 2], [1, 2], [1, 3], [0, 3]]]
    number = np.broadcast_to(microbatch, len(boxes))
    faces = palette(look)[np.where(number < 0, len(CYCLE), number % len(CYCLE))]
    style = {"linewidth": 0.0, "zorder": 1, "rasterized": len(boxes) > DETAILED_SPANS, **style}
    axes.add_collection(PolyCollection(corners, facecolor=faces, **style), autolim=False)


def _draw_numbers(axes: Axes, look: Look, columns: Floats, passes: Floats) -> None:
    """Write microbatches, once over the bars of a run of a pass (run, microbatch), in one size."""
    keys, first, place = np.unique(passes, axis=1, return_index=True, return_inverse=True)
    left, right, top, bottom = columns[:, first]
    np.minimum.at(left, place.ravel(), columns[0])
    np.maximum.at(right, place.ravel(), columns[1])
    microbatch = keys[1].astype(np.int64)
    width, height = np.ptp(axes.transData.transform([(0, 0), (1, 1)]), axis=0) * 72 / DPI  # points
    fits = (right - left) * width / (0.64 * len(str(microbatch.max())) + 0.4)
    size = min(9.0, 0.98 * np.quantile(fits, 0.05), 0.7 * height * (bottom - top).min())
    spans = np.flatnonzero((fits >= size) & (microbatch >= 0))
    if size < 5.0 or spans.size > MOST_NUMBERS:
        return
    colours, ink = palette(look), "white" if look.luminance[1] < 0.35 else "black"
    for span, number in zip(spans, microbatch[spans], strict=True):
        halo = withStroke(linewidth=2.0, foreground=colours[number % len(CYCLE)])
        axes.text(
            (left[span] + right[span]) / 2, (top[span] + bottom[span]) / 2, str(number), color=ink,
            fontsize=size, ha="center", va="center_baseline", zorder=4, path_effects=[halo],
        )  # fmt: skip


def draw_legend(figure: Figure, timelines: Sequence[Timeline], detailed: bool) -> None:
    """Operations in one line, microbatch colours in the next, under the time axis."""

    def swatch(looks: Iterable[Look], numbers: Iterable[int]) -> tuple[Patch, ...]:
        return tuple(
            Patch(fc=palette(k)[n % len(CYCLE)], ec=EDGES[k.coloured], hatch=k.hatch, lw=0.4)
            for n in numbers
            for k in looks
        )

    looks = [look if detailed else look._replace(hatch="") for look in looks_of(timelines)]
    first: dict[str, Any] = {k.label: swatch([k], range(3 if k.coloured else 1)) for k in looks}
    if any((timeline.start > timeline.posted).any() for timeline in timelines):
        first[WAITING.label] = Line2D([], [], color=palette(WAITING)[0])
    first[IDLE.label] = Patch(facecolor=palette(IDLE)[0])
    looks = [look for look in looks if look.coloured][:2]
    count = 1 + max(int(timeline.microbatch.max()) for timeline in timelines) if looks else 0
    if count > len(CYCLE):
        second = {f"colour = microbatch modulo {len(CYCLE)}": swatch(looks[:1], range(len(CYCLE)))}
    else:
        second = {str(n) if n else "microbatch 0": swatch(looks, [n]) for n in range(count)}
    for number, line in enumerate(filter(None, (first, second))):
        letters = sum(len(label) + 8 for label in line)  # 185 fill the width in 9 points
        figure.legend(
            [*line.values()], [*line], ncols=len(line), fontsize=9.0 * min(1.0, 185 / letters),
            loc="center", bbox_to_anchor=(0.5, (0.45 - 0.25 * number) / figure.get_figheight()),
            columnspacing=1.4, handlelength=2.5, handler_map={tuple: HandlerTuple(None, pad=0.0)},
        )  # fmt: skip

"""The rows of a timeline's picture: a bar for every span, one row a rank.

Hue says which microbatch, lightness and hatching which operation: without colour vision
only the microbatch is lost, and the number in the bar restores it. The bars of one
operation are one collection, so that the cost is linear in the spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patheffects import withStroke

from simulator.charts.chart import DPI
from simulator.charts.style import CYCLE, EDGES, IDLE, WAITING, look_of, looks_of, palette
from simulator.experiment.mesh import short_coordinate
from simulator.experiment.roles import Role, name_of_rank, role_among
from simulator.program.operation_columns import Look
from simulator.timeline.timeline import Floats, Timeline

COMPUTE_LANE, COMMUNICATION_LANES = (0.05, 0.50), (0.53, 0.97)  # of a row
MOST_LANES = 6  # streams of a rank beyond that share lanes
DETAILED_SPANS = 5_000  # with more, neither edges nor hatches: they clutter and are slow
STEP_LABEL_PIXELS = 34 / 72 * DPI  # as wide as "step 11" with a little room beside it
HATCHED_PIXELS = 6  # narrower bars have no hatch
MOST_NUMBERS = 400  # of an operation in a panel
STEP_MARK_PIXELS = 8  # by which the mark of a training step is longer than the bars


def by_mesh(timeline: Timeline) -> Timeline:
    """Return the timeline with its rows in the order of roles and meshes: groups lie together."""
    roles = timeline.roles
    if not roles:
        return timeline
    places = [_place(roles, rank) for rank in timeline.members]
    order = sorted(range(len(places)), key=places.__getitem__)
    if order == [*range(len(places))]:
        return timeline
    return replace(
        timeline,
        rank=np.argsort(order)[timeline.rank],
        members=[timeline.members[row] for row in order],
        counts=[timeline.counts[row] for row in order],
        memory=[timeline.memory[row] for row in order] if timeline.memory else [],
    )


def _place(roles: Sequence[Role], rank: int) -> tuple[int, ...]:
    """Return the first rank of the role of `rank`, and its position on each axis there."""
    role = role_among(roles, rank)
    return (role.first_rank, *role.coordinate(rank).values())


def names_of_ranks(timeline: Timeline) -> list[str]:
    """Return the label of every row: ``rank 3``, on a mesh of several axes ``d0 p1  rank 3``.

    Where there are several roles, the label says which: ``rank 3 (server 0)``.
    """
    roles = timeline.roles
    names = []
    for rank in timeline.members:
        name, short = name_of_rank(roles, rank), ""
        if roles:
            role = role_among(roles, rank)
            short = short_coordinate(role.mesh, rank - role.first_rank)
        names.append(f"{short}  {name}".strip())
    return names


def rectangles(timeline: Timeline) -> Floats:
    """Return left, right (seconds), top, bottom (rows) of every span, one span a line.

    Row r, from r to r + 1, is rank r. Compute is the tall lane on top; below it every
    communication stream of the rank has a lane of its own, in order of the names. With no
    communication at all, compute fills the row.
    """
    streams, stream_of_kind = np.unique(
        [str(k.stream) for k in timeline.kinds], return_inverse=True
    )
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
    _draw_steps(axes, timeline, row, second)
    step = next(n for n in (2**i for i in range(40)) if n * row > 0.18 * DPI)
    roles = timeline.roles
    axes.set_yticks(((top + bottom) / 2)[::step], names_of_ranks(timeline)[::step])
    if roles and step == 1:
        outer = [_place(roles, rank)[:-1] for rank in timeline.members]
        for row in (r for r, pair in enumerate(pairwise(outer), 1) if len({*pair}) > 1):
            axes.axhline(row, color="black", linewidth=0.5, alpha=0.35, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="black", alpha=0.12, linewidth=0.6)


def _draw_steps(axes: Axes, timeline: Timeline, row: float, second: float) -> None:
    """Mark where every rank begins a training step after the first, and say which on top.

    A step whose number would run into the one before it has none.
    """
    if timeline.horizon == 1:
        return
    compute = timeline.is_compute & (timeline.step > 0)
    keys = timeline.rank[compute] * timeline.horizon + timeline.step[compute]
    begun, place = np.unique(keys, return_inverse=True)
    begin = np.full(begun.size, np.inf)
    np.minimum.at(begin, place, timeline.start[compute])
    ranks, steps = np.divmod(begun, timeline.horizon)
    highest, lowest = _compute_lane(timeline)
    reach = STEP_MARK_PIXELS / abs(row)  # above and below the bars
    top, bottom = ranks + max(highest - reach, 0.0), ranks + min(lowest + reach, 1.0)
    axes.vlines(begin, top, bottom, color="black", linewidth=1.6, zorder=5)
    free = 0.0
    for time, number in zip(begin[ranks == 0], steps[ranks == 0], strict=True):
        if time * second < free:
            continue
        free = time * second + STEP_LABEL_PIXELS
        axes.annotate(
            f"step {number}", (time, 0.0), (2, 1), textcoords="offset points", fontsize=7,
            annotation_clip=True,
        )  # fmt: skip


def _runs(timeline: Timeline) -> Any:
    """Return for each span the number of its run.

    A run is the bars of one pass that have no other compute between them.
    """
    names = [f"{kind.op} {kind.stage}" for kind in timeline.kinds]
    which = np.unique(names, return_inverse=True)[1][timeline.kind]
    order = np.lexsort((timeline.start, timeline.is_compute, timeline.rank))
    batch = timeline.step, timeline.microbatch
    what = np.stack([timeline.rank, timeline.is_compute, which, *batch])[:, order]
    runs = np.empty(len(timeline), dtype=np.int64)
    runs[order] = np.concatenate([[0], (np.diff(what, axis=1) != 0).any(axis=0).cumsum()])
    return runs


def _draw_boxes(axes: Axes, look: Look, columns: Any, microbatch: Any = -1, **style: Any) -> None:
    """Draw rectangles (left, right, top, bottom) as one collection, coloured by microbatch."""
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

"""Timelines as pictures: one row a rank, time to the right, predicted above measured.

Hue says which microbatch; lightness and hatching say which operation, so that a print in
grey or a colour-blind reader loses only the former (and the number in the bar restores
it). Bars are drawn by the thousand as one collection per operation: cost is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from simulator.timeline import Floats, Integers, Kind, Timeline

DPI = 150
WIDTH, MAX_HEIGHT, ROW_HEIGHT = 13.0, 16.0, 0.8  # inches
LEFT, RIGHT = 0.8, 0.25  # inches beside the bars
HATCHED_SPANS = 5_000  # with more spans, neither hatches nor edges: they cost and clutter
MOST_NUMBERS = 400
COMPUTE_LANE = (0.08, 0.60)  # of a row; alone in the row, to 0.92
COMMUNICATION_LANES = (0.65, 0.94)
MOST_LANES = 6  # streams of a rank beyond that share lanes
STYLE = {"hatch.linewidth": 0.7, "font.size": 9.0, "font.family": "DejaVu Sans"}
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

# Okabe & Ito's colours, then Paul Tol's "muted"; neighbours differ most.
CYCLE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#332288",
    "#D55E00", "#56B4E9", "#882255", "#999933", "#AA4499", "#44AA99",
)  # fmt: skip
GREY = "#808080"


class Look(NamedTuple):
    """How an operation is drawn; `luminance` is the range its colours are brought into."""

    label: str
    luminance: tuple[float, float]
    hatch: str = ""
    coloured: bool = False


LOOKS = {
    "F": Look("forward", (0.50, 0.80), coloured=True),
    "B": Look("backward", (0.08, 0.25), "///", coloured=True),
    "I": Look("backward, input", (0.16, 0.32), "///", coloured=True),
    "W": Look("backward, weights", (0.05, 0.12), "...", coloured=True),
    "STEP": Look("optimizer step", (0.04, 0.04)),
    "SEND": Look("send", (0.25, 0.25), "////"),
    "RECV": Look("receive", (0.50, 0.50), "\\\\\\\\"),
    "ALL_REDUCE": Look("all-reduce", (0.12, 0.12), "xxxx"),
}
WAITING = Look("waiting for partner", (0.60, 0.60))
IDLE = Look("idle", (0.83, 0.83))


def draw_timeline(timeline: Timeline, path: str | Path, *, title: str = "") -> None:
    """Draw one timeline to the picture `path`; its suffix chooses the format.

    Raises:
        ValueError: nothing to draw, or a suffix that matplotlib cannot write.
        OSError: `path` cannot be written.
    """
    _save([timeline], path, title)


def draw_comparison(
    predicted: Timeline, measured: Timeline, path: str | Path, *, title: str = ""
) -> None:
    """Draw `predicted` above `measured` on one time axis to the picture `path`.

    Raises:
        ValueError: nothing to draw, different numbers of ranks, or a suffix that
            matplotlib cannot write.
        OSError: `path` cannot be written.
    """
    _save([predicted, measured], path, title)


def bubble_fraction(timeline: Timeline) -> float:
    """The share of ranks × iteration time in which no compute runs, 0 to 1."""
    compute = timeline.is_compute
    rank, start, end = timeline.rank[compute], timeline.start[compute], timeline.end[compute]
    order = np.lexsort((start, rank))
    rank, start, end = rank[order], start[order], end[order]
    bounds = np.searchsorted(rank, np.arange(timeline.num_ranks + 1))
    busy = 0.0
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        until = np.maximum.accumulate(end[first:last])
        begin = start[first:last].copy()
        begin[1:] = np.maximum(begin[1:], until[:-1])
        busy += float(np.maximum(end[first:last] - begin, 0.0).sum())
    available = timeline.num_ranks * timeline.iteration_time
    return 1.0 - busy / available if available else 0.0


def rectangles(timeline: Timeline) -> Floats:
    """Left, right (seconds), top, bottom (rows) of every span, one span a line.

    Row r, from r to r + 1, is rank r. Compute is the tall lane on top; below it every
    communication stream of the rank has a lane of its own, in order of the names.
    """
    streams = sorted({kind.stream for kind in timeline.kinds})
    stream = np.array([streams.index(kind.stream) for kind in timeline.kinds])[timeline.kind]
    communication = ~timeline.is_compute
    top = timeline.rank + COMPUTE_LANE[0]
    bottom = timeline.rank + compute_bottom(timeline)
    if communication.any():
        key = timeline.rank[communication] * len(streams) + stream[communication]
        used, place = np.unique(key, return_inverse=True)
        first = np.searchsorted(used, used // len(streams) * len(streams))
        lane = (np.arange(used.size) - first) % MOST_LANES
        highest, lowest = COMMUNICATION_LANES
        height = (lowest - highest) / (lane.max() + 1)
        top[communication] = timeline.rank[communication] + highest + lane[place] * height
        bottom[communication] = top[communication] + 0.85 * height
    return np.stack([timeline.start, timeline.end, top, bottom], axis=1)


def compute_bottom(timeline: Timeline) -> float:
    """Where the compute lane of a row ends: lower where there is no communication."""
    return COMPUTE_LANE[1] if not timeline.is_compute.all() else 1.0 - COMPUTE_LANE[0]


def shade(colour: str, luminance: float) -> Floats:
    """`colour` mixed with white or black until its relative luminance is as given (RGB)."""
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    now = float(linear @ (0.2126, 0.7152, 0.0722))
    if luminance > now:
        linear += (1.0 - linear) * (luminance - now) / (1.0 - now)
    else:
        linear *= luminance / now
    mixed = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.clip(mixed, 0.0, 1.0)


def palette(look: Look) -> Floats:
    """RGB per colour of the cycle, then the grey of what has no microbatch.

    The lightness order of the cycle survives inside the luminance range of the look.
    """
    low, high = look.luminance
    brightness = [sum(to_rgb(colour)) / 3 for colour in CYCLE]
    colours = [
        shade(colour if look.coloured else GREY, low + (high - low) * bright)
        for colour, bright in zip(CYCLE, brightness, strict=True)
    ]
    return np.array([*colours, shade(GREY, (low + high) / 2)])


def look_of(kind: Kind) -> Look:
    """The look of a span; an operation this module does not know is plain grey."""
    default = Look(kind.op.lower().replace("_", "-"), (0.18, 0.18), "xx")
    return LOOKS.get(kind.op, default)


def unit_of(seconds: float) -> tuple[float, str]:
    """The largest unit (in seconds, and its name) of which `seconds` holds at least one."""
    return next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])


def _save(timelines: Sequence[Timeline], path: str | Path, title: str) -> None:
    path = Path(path)
    allowed = Figure().canvas.get_supported_filetypes()
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in allowed:
        names = ", ".join(f".{name}" for name in sorted(allowed))
        raise ValueError(f"{path}: cannot draw a {path.suffix or 'suffixless'} file; allowed: {names}")
    with matplotlib.rc_context(STYLE):
        figure = _figure(timelines, title)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=suffix, dpi=DPI)


def _figure(timelines: Sequence[Timeline], title: str) -> Figure:
    """All panels one above the other, on one time axis, and the legend below."""
    ranks = timelines[0].num_ranks
    for timeline in timelines:
        if not len(timeline):
            raise ValueError("nothing to draw: the timeline has no spans")
        if timeline.num_ranks != ranks:
            raise ValueError(f"cannot compare {ranks} ranks with {timeline.num_ranks} ranks")
    last = max(timeline.iteration_time for timeline in timelines) or 1e-6
    over, above, below = 0.5 if title else 0.1, 0.32, 1.15  # inches: title, panel title, rest
    panels = len(timelines)
    room = (MAX_HEIGHT - over - below) / panels - above
    body = min(max(ROW_HEIGHT * ranks, 1.2), room)
    height = over + below + panels * (above + body)
    figure = Figure(figsize=(WIDTH, height))
    if title:
        figure.suptitle(title, y=1 - 0.15 / height, va="top", fontsize=13, fontweight="bold")
    for number, timeline in enumerate(timelines):
        bottom = height - over - (number + 1) * (above + body)
        box = (LEFT / WIDTH, bottom / height, 1 - (LEFT + RIGHT) / WIDTH, body / height)
        axes = figure.add_axes(box)
        _draw_panel(axes, timeline, 1.04 * last, body)
        axes.tick_params(labelbottom=number + 1 == panels)
    figure.axes[-1].set_xlabel(f"time ({unit_of(last)[1]})")
    _draw_legend(figure, timelines, height)
    return figure


def _draw_panel(axes: Axes, timeline: Timeline, limit: float, inches: float) -> None:
    """Draw one timeline on `axes`, `inches` high, from 0 to `limit` seconds."""
    scale, unit = unit_of(limit / 1.04)
    time, ranks = timeline.iteration_time, timeline.num_ranks
    axes.set(xlim=(0.0, limit), ylim=(ranks, 0.0))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
    step = next(n for n in (2**i for i in range(40)) if n * inches / ranks > 0.2)
    axes.set_yticks(np.arange(0, ranks, step) + 0.5, [f"rank {n}" for n in range(0, ranks, step)])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    source = timeline.meta.get("source", "timeline")
    heading = f"{source} — {time / scale:.4g} {unit}, bubble fraction {bubble_fraction(timeline):.2f}"
    axes.set_title(heading, loc="left", fontsize=11)

    rows = np.arange(ranks)
    strip = np.stack(
        [0.0 * rows, 0.0 * rows + time, rows + COMPUTE_LANE[0], rows + compute_bottom(timeline)],
        axis=1,
    )
    _draw_boxes(axes, strip, IDLE, zorder=0)
    boxes = rectangles(timeline)
    pixels = (WIDTH - LEFT - RIGHT) * DPI / limit  # a second
    detailed = len(timeline) <= HATCHED_SPANS
    waits = np.flatnonzero(timeline.start > timeline.posted)
    middle = boxes[waits, 2:].mean(axis=1)
    thin = 0.1 * (boxes[waits, 3] - boxes[waits, 2])
    lines = [timeline.posted[waits], timeline.start[waits], middle - thin, middle + thin]
    _draw_boxes(axes, np.stack(lines, axis=1), WAITING, rasterized=not detailed)

    for look in _looks([timeline]):
        chosen = np.flatnonzero(timeline.of_kind(lambda kind, look=look: look_of(kind) == look))
        style: dict[str, Any] = {"rasterized": not detailed}
        if detailed:
            width = (boxes[chosen, 1] - boxes[chosen, 0]) * pixels
            style |= {"hatch": look.hatch, "edgecolor": _edge(look)}
            style["linewidth"] = np.clip(0.1 * width, 0.0, 0.7) if look.coloured else 0.4
        _draw_boxes(axes, boxes[chosen], look, timeline.microbatch[chosen], zorder=2, **style)
    _draw_numbers(axes, timeline, boxes, pixels, inches / ranks)
    axes.axvline(time, color="black", linestyle="--", linewidth=1.0, zorder=3)
    axes.annotate(
        f"{time / scale:.4g} {unit}", (time, 0.5), (3, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", rotation=90, va="center", fontsize=9,
    )  # fmt: skip


def _draw_boxes(
    axes: Axes, boxes: Floats, look: Look, microbatch: Integers | None = None, **style: Any
) -> None:
    colours = palette(look)
    number = np.full(len(boxes), -1) if microbatch is None else microbatch
    corners = boxes[:, [[0, 2], [1, 2], [1, 3], [0, 3]]]
    faces = colours[np.where(number < 0, len(CYCLE), number % len(CYCLE))]
    style = {"linewidth": 0.0, "zorder": 1, **style}
    axes.add_collection(PolyCollection(corners, facecolor=faces, **style), autolim=False)


def _draw_numbers(
    axes: Axes, timeline: Timeline, boxes: Floats, pixels: float, row: float
) -> None:
    """Write microbatch numbers where all digits fit; `row` is inches a row, `pixels` a second."""
    size = min(9.0, 0.7 * 72 * row * (COMPUTE_LANE[1] - COMPUTE_LANE[0]))  # points
    digits = len(str(int(timeline.microbatch.max())))
    needed = (digits * 0.64 * size + 2.0) * DPI / 72
    wide = (boxes[:, 1] - boxes[:, 0]) * pixels >= needed
    chosen = np.flatnonzero(wide & timeline.is_compute & (timeline.microbatch >= 0))
    if size < 5.0 or chosen.size > MOST_NUMBERS:
        return
    for span in chosen.tolist():
        number, look = int(timeline.microbatch[span]), look_of(timeline.kinds[timeline.kind[span]])
        left, right, top, bottom = boxes[span]
        dark = look.luminance[1] < 0.4
        halo = withStroke(linewidth=2.0, foreground=palette(look)[number % len(CYCLE)])
        axes.text(
            (left + right) / 2, (top + bottom) / 2, str(number), ha="center", va="center_baseline",
            fontsize=size, color="white" if dark else "black", zorder=4,
            path_effects=[halo] if look.hatch else None,
        )  # fmt: skip


def _looks(timelines: Sequence[Timeline]) -> list[Look]:
    """The looks that occur, in the order of `LOOKS`, unknown operations last."""
    kinds = [t.kinds[index] for t in timelines for index in np.unique(t.kind).tolist()]
    used = {look_of(kind): None for kind in kinds}
    return [look for look in LOOKS.values() if look in used] + sorted(used.keys() - LOOKS.values())


def _edge(look: Look) -> tuple[float, ...]:
    """The colour of edges and hatches, RGBA."""
    return (1.0, 1.0, 1.0, 0.6) if look.coloured else (0.2, 0.2, 0.2, 1.0)


def _patch(look: Look, colour: int) -> Patch:
    style = {"linewidth": 0.4, "edgecolor": _edge(look), "hatch": look.hatch}
    return Rectangle((0, 0), 1, 1, facecolor=palette(look)[colour % len(CYCLE)], **style)


def _draw_legend(figure: Figure, timelines: Sequence[Timeline], height: float) -> None:
    """Operations in one line, microbatch colours in the next, under the time axis."""
    looks = _looks(timelines)
    hatched = sum(map(len, timelines)) <= HATCHED_SPANS * len(timelines)
    looks = [look if hatched else look._replace(hatch="") for look in looks]
    waited = any((timeline.start > timeline.posted).any() for timeline in timelines)
    entries = [
        (look.label, tuple(_patch(look, colour) for colour in range(3 if look.coloured else 1)))
        for look in [*looks, *([WAITING] if waited else []), IDLE]
    ]
    pair = [look for look in looks if look.coloured][:2]
    count = 1 + max(int(timeline.microbatch.max()) for timeline in timelines)
    coloured = [
        (str(n) if n else "microbatch 0", tuple(_patch(look, n) for look in pair))
        for n in range(count)
    ]
    if count > len(CYCLE):
        every = tuple(_patch(pair[0], n) for n in range(len(CYCLE)))
        coloured = [(f"colour = microbatch, repeating every {len(CYCLE)}", every)]
    for line, row in enumerate([entries, coloured]):
        if row:
            figure.legend(
                [handle for _, handle in row], [label for label, _ in row], ncols=len(row),
                loc="center", bbox_to_anchor=(0.5, (0.45 - 0.25 * line) / height), frameon=False,
                handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)}, columnspacing=1.3,
            )  # fmt: skip

"""Arrows from the version that a worker reads to what the server makes of its gradient.

Where many workers push, all arrows together would hide the bars. Then only those of one worker are
drawn, and the picture says whose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from simulator.analysis.pushes import Push, pushes_of
from simulator.charts.density import Window
from simulator.charts.rows import rectangles
from simulator.timeline.timeline import Timeline

MOST_ARROWS = 24  # in a panel
COLOUR = "#B00020"


class Arrow(NamedTuple):
    """An arrow of a panel.

    Attributes:
        start, end: the time in seconds and the height in rows of its ends.
        updates: the updates between what it reads and what it writes.
        worker: the row of the worker.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    updates: int
    worker: int


def arrows_of(timeline: Timeline) -> list[Arrow]:
    """Return an arrow for every push: from the end of its pull to the end of its update."""
    pushes = pushes_of(timeline)
    if not pushes:
        return []
    middle = rectangles(timeline)[:, 2:].mean(axis=1)

    def arrow(push: Push) -> Arrow:
        start, end = float(timeline.end[push.pull]), float(timeline.end[push.write])
        ends = (start, float(middle[push.pull])), (end, float(middle[push.write]))
        return Arrow(*ends, push.updates, push.worker)

    return [arrow(push) for push in pushes]


def inside(arrows: Sequence[Arrow], window: Window) -> list[Arrow]:
    """Return the arrows of which both ends are in a window, as they lie in its excerpt."""
    first, last, begin, end = window

    def has(place: tuple[float, float]) -> bool:
        return begin <= place[0] <= end and first <= place[1] <= last

    def down(place: tuple[float, float]) -> tuple[float, float]:
        return place[0], place[1] - first

    return [
        Arrow(down(arrow.start), down(arrow.end), arrow.updates, arrow.worker - first)
        for arrow in arrows
        if has(arrow.start) and has(arrow.end)
    ]


def chosen(arrows: Sequence[Arrow], most: int = MOST_ARROWS) -> list[Arrow]:
    """Return all arrows if there are few, else the first ones of the worker furthest behind."""
    if len(arrows) <= most:
        return list(arrows)
    behind: Counter[int] = Counter()
    for arrow in arrows:
        behind[arrow.worker] += arrow.updates
    worker = min(behind, key=lambda row: (-behind[row], row))
    return [arrow for arrow in arrows if arrow.worker == worker][:most]


def draw_arrows(
    axes: Axes, arrows: Sequence[Arrow], names: Sequence[str], pad: float = 6.0
) -> None:
    """Draw arrows on a panel with a row a rank, and say which of how many they are.

    Args:
        axes: the panel; its limits are set already.
        arrows: all that would have room in it.
        names: of its rows.
        pad: points between the panel and what is said above it.
    """
    shown = chosen(arrows)
    if not shown:
        return
    for arrow in shown:
        up = arrow.end[1] < arrow.start[1]
        axes.add_patch(
            FancyArrowPatch(
                arrow.start, arrow.end, arrowstyle="-|>", mutation_scale=9.0, linewidth=1.1,
                color=COLOUR, connectionstyle=f"arc3,rad={0.08 if up else -0.08}", zorder=6,
                shrinkA=0.0, shrinkB=0.0,
            )
        )  # fmt: skip
        axes.plot(*arrow.start, marker="o", markersize=3.0, color=COLOUR, zorder=6)
        axes.annotate(
            str(arrow.updates), arrow.end, (3, 3), textcoords="offset points", fontsize=7.5,
            color=COLOUR, zorder=7, path_effects=[withStroke(linewidth=2.0, foreground="white")],
            annotation_clip=True,
        )  # fmt: skip
    which = "arrows: from a version read to the update with its gradient, and updates in between"
    if len(shown) < len(arrows):
        which += f"; {len(shown)} of {len(arrows)}, those of {names[shown[0].worker].strip()}"
    axes.set_title(which, loc="right", fontsize=7.5, color=COLOUR, pad=pad)

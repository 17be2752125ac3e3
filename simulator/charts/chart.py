"""The figure that every chart returns, and how its panels are laid out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from simulator.experiment.section import ExperimentError

DPI = 150
SUFFIXES = (".png", ".svg", ".pdf")
STYLE: dict[Any, Any] = {"hatch.linewidth": 0.7, "font.size": 9.0, "font.family": "DejaVu Sans"}
STYLE |= {"text.parse_math": False, "axes.axisbelow": True, "legend.frameon": False}
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

WIDTH, RIGHT = 13.0, 0.25  # inches: the whole picture, the margin beside its panels
LEAST_LEFT = 0.8  # inches
GAP = 0.4  # inches above every panel, for its title
BELOW = 1.15  # inches under the last panel, for its axis and the legend

Parameters = ParamSpec("Parameters")


class Chart(Figure):
    """A matplotlib figure that can save itself and that a notebook shows."""

    def save(self, path: str | Path) -> None:
        """Write the picture to `path`, whole or not at all; the suffix chooses the format.

        Raises:
            ExperimentError: the suffix is not one of `SUFFIXES`.
            OSError: `path` cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ExperimentError(f"{path}: no picture's suffix; allowed: {', '.join(SUFFIXES)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with matplotlib.rc_context(STYLE):
                self.savefig(partial, format=suffix[1:], dpi=DPI)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _repr_png_(self) -> bytes:
        """Return the picture for a notebook."""
        written = BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(written, format="png", dpi=DPI)
        return written.getvalue()


def styled(figure: Callable[Parameters, Chart]) -> Callable[Parameters, Chart]:
    """Make `figure` draw in the style of all charts, without a lasting change of matplotlib's."""

    @wraps(figure)
    def drawn(*arguments: Parameters.args, **named: Parameters.kwargs) -> Chart:
        with matplotlib.rc_context(STYLE):
            return figure(*arguments, **named)

    return drawn


def unit_of(last_s: float) -> tuple[float, str]:
    """Return the unit of a time axis that ends at `last_s`: its length in seconds, its name."""
    return next((known for known in UNITS if last_s >= known[0]), UNITS[-1])


def inches_of(labels: Sequence[str], size: float) -> float:
    """Return the width of the widest line of `labels` in a font of `size` points."""
    lines = [line for label in labels for line in label.splitlines() if line.strip()]
    longest = sorted(set(lines), key=len)[-8:]
    widths = [TextPath((0, 0), line, size=size).get_extents().width for line in longest]
    return float(max(widths, default=0.0)) / 72


def column_of_panels(
    title: str, heights: Sequence[float], left: float, gap: float = GAP
) -> tuple[Chart, list[Axes]]:
    """Return a chart of empty panels, one above the other, with room for a legend below.

    Args:
        title: of the whole picture; may have several lines.
        heights: of the panels from top to bottom, inches.
        left: inches that the labels of the rows need.
        gap: inches between two panels.
    """
    over = 0.1 + 0.3 * len(title.splitlines())
    left = max(left + 0.2, LEAST_LEFT)
    height = over + GAP + BELOW + sum(heights) + gap * (len(heights) - 1)
    chart = Chart(figsize=(WIDTH, height), dpi=DPI)
    chart.suptitle(title, y=1 - 0.15 / height, va="top", fontsize=13, fontweight="bold")
    panels, bottom = [], height - over - GAP + gap
    for inches in heights:
        bottom -= gap + inches
        box = (left / WIDTH, bottom / height, 1 - (left + RIGHT) / WIDTH, inches / height)
        panels.append(chart.add_axes(box))
    return chart, panels

"""Colours and hatches that all charts of timelines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from simulator.program.operation_columns import Look
from simulator.program.operations import ROWS
from simulator.timeline.timeline import Floats, Kind, Timeline

# Okabe & Ito and Paul Tol's "muted", so ordered that neighbours differ to any colour vision.
CYCLE = (
    "#0072B2", "#E69F00", "#56B4E9", "#AA4499", "#009E73", "#F0E442",
    "#332288", "#CC79A7", "#999933", "#882255", "#44AA99", "#D55E00",
)  # fmt: skip
GREY = "#808080"
EDGES = {True: "#ffffff99", False: "#333333"}  # and hatches: of coloured looks, of grey ones
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue


WAITING = Look("waiting for partner", (0.60, 0.60))
IDLE = Look("idle", (0.83, 0.83))


def shade(colour: str, luminance: float) -> Floats:
    """Mix `colour` with white or black to a relative luminance (gamma 2.2); RGB from 0 to 1."""
    linear = np.array(to_rgb(colour)) ** 2.2
    now = float(linear @ LUMINANCE)
    white = max(luminance - now, 0.0) / (1.0 - now)
    linear = linear * min(luminance / now, 1.0) * (1.0 - white) + white
    return np.clip(linear, 0.0, 1.0) ** (1 / 2.2)


def palette(look: Look) -> Floats:
    """Return one RGB row for each colour of the cycle, then the grey for no microbatch.

    Colours that are bright in the cycle stay the brighter ones.
    """
    brightness = np.array([to_rgb(colour) for colour in CYCLE]) ** 2.2 @ LUMINANCE
    steps = np.linspace(*look.luminance, len(CYCLE))[brightness.argsort().argsort()]
    hues = CYCLE if look.coloured else [GREY] * len(CYCLE)
    return np.array([*map(shade, hues, steps), shade(GREY, sum(look.luminance) / 2)])


def look_of(kind: Kind) -> Look:
    """Return the look of a span: that of its operation."""
    return kind.op.row.look


def with_spans(timeline: Timeline, spans: Any) -> Timeline:
    """Return `timeline` with the chosen spans only (a mask, indices or a slice)."""
    names = ("rank", "kind", "microbatch", "step", "posted", "start", "end")
    columns = {name: getattr(timeline, name)[spans] for name in names}
    return replace(timeline, **columns, decisions=[], idle=[])  # they index all spans


def looks_of(timelines: Sequence[Timeline]) -> list[Look]:
    """Return the looks that occur, in the order of the table of operations."""
    used = {look_of(t.kinds[kind]) for t in timelines for kind in np.unique(t.kind).tolist()}
    return [row.look for row in ROWS if row.look in used]

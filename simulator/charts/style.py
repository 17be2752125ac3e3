"""Colours and hatches that all charts of timelines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb

from simulator.timeline.timeline import Floats, Kind, Timeline

# Okabe & Ito and Paul Tol's "muted", so ordered that neighbours differ to any colour vision.
CYCLE = (
    "#0072B2", "#E69F00", "#56B4E9", "#AA4499", "#009E73", "#F0E442",
    "#332288", "#CC79A7", "#999933", "#882255", "#44AA99", "#D55E00",
)  # fmt: skip
GREY = "#808080"
EDGES = {True: "#ffffff99", False: "#333333"}  # and hatches: of coloured looks, of grey ones
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green, blue


class Look(NamedTuple):
    """The way an operation is drawn; its colours are brought into the range `luminance`."""

    label: str
    luminance: tuple[float, float]
    hatch: str = ""
    coloured: bool = False


LOOKS = {
    "F": Look("forward", (0.34, 0.68), coloured=True),
    "B": Look("backward", (0.05, 0.20), "///", coloured=True),
    "I": Look("backward, input", (0.13, 0.25), "///", coloured=True),
    "W": Look("backward, weights", (0.03, 0.11), "...", coloured=True),
    "R": Look("forward again", (0.27, 0.40), "\\\\\\", coloured=True),
    "NORM": Look("gradient norm", (0.08, 0.08), "..."),
    "STEP": Look("optimizer step", (0.04, 0.04)),
    "SEND": Look("send", (0.25, 0.25), "////"),
    "RECV": Look("receive", (0.50, 0.50), "\\\\\\\\"),
    "ALL_REDUCE": Look("all-reduce", (0.12, 0.12), "xxxx"),
    "REDUCE_SCATTER": Look("reduce-scatter", (0.20, 0.20), "++++"),
    "ALL_GATHER": Look("all-gather", (0.40, 0.40), "||||"),
    "ALL_TO_ALL": Look("all-to-all", (0.30, 0.30), "ooo"),
    "SHIFT": Look("shift", (0.30, 0.30), "----"),
    "SHIFT_BACK": Look("shift back", (0.60, 0.60), "----"),
}
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
    """Return the look of a span; an operation without a row in `LOOKS` is plain grey."""
    return LOOKS.get(kind.op) or Look(kind.op.lower().replace("_", "-"), (0.18, 0.18), "xx")


def with_spans(timeline: Timeline, spans: Any) -> Timeline:
    """Return `timeline` with the chosen spans only (a mask, indices or a slice)."""
    names = ("rank", "kind", "microbatch", "posted", "start", "end")
    return replace(timeline, **{name: getattr(timeline, name)[spans] for name in names})


def looks_of(timelines: Sequence[Timeline]) -> list[Look]:
    """Return the looks that occur, in the order of `LOOKS`, unknown operations last."""
    used = {look_of(t.kinds[kind]) for t in timelines for kind in np.unique(t.kind).tolist()}
    return [look for look in LOOKS.values() if look in used] + sorted(used - {*LOOKS.values()})

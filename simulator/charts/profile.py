"""A calibrated profile as a figure: what was measured, its spread, and the fitted curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from simulator.charts.chart import DPI, Chart, styled
from simulator.cluster.profile import Profile
from simulator.cluster.timing import Points, Timing
from simulator.timeline.timeline import Floats
from simulator.units import nbytes, seconds, shortened


def fit(points: Points) -> tuple[float, float]:
    """Return (latency in seconds, bandwidth in bytes/s) of the line that fits the points best.

    The squares of the relative errors are least. Infinite bandwidth means that larger
    transfers take no longer.
    """
    sizes = np.array([size for size, _ in points], dtype=float)
    times = np.maximum([timing.mean_s for _, timing in points], 1e-12)
    slope = 0.0
    if len(points) > 1:
        columns = np.stack([1.0 / times, sizes / times], axis=1)
        slope = float(np.linalg.lstsq(columns, np.ones(len(points)), rcond=None)[0][1])
    slope = max(slope, 0.0)
    # With the slope given, the best latency is a weighted mean of what is left; none is negative.
    latency = float(np.average(times - slope * sizes, weights=times**-2.0))
    return max(latency, 0.0), 1.0 / slope if slope > 0 else float("inf")


MOST_PASSES = 24
WIDTH, ROW, TRANSFERS, MARGINS = 12.0, 0.28, 4.6, 2.0  # inches


@styled
def profile_figure(profile: Profile) -> Chart:
    """Return the picture of a profile: transfers by size above, the longest passes below.

    Raises:
        ValueError: nothing was measured.
    """
    sent = {}
    for remote, where in ((False, ""), (True, " between hosts")):
        if messages := profile.messages_of(remote):
            sent[f"message{where}"] = messages
        for op, sizes in sorted(profile.collectives_of(remote).items()):
            for size, points in sorted(sizes.items()):
                sent[f"{op.lower().replace('_', '-')}, {size} ranks{where}"] = points
    longest = sorted(profile.passes.items(), key=lambda item: -item[1].mean_s)[:MOST_PASSES]
    if not sent and not longest:
        raise ValueError("nothing to draw: the profile is empty")
    heights = [TRANSFERS] * bool(sent) + [ROW * len(longest) + 0.5] * bool(longest)
    figure = Chart(figsize=(WIDTH, sum(heights) + MARGINS), dpi=DPI, layout="constrained")
    # Subfigures have margins of their own: long names of passes leave no gap beside transfers.
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    machine = profile.machine
    figure.suptitle(
        ", ".join(
            [
                f"Calibration of {machine.get('hostname', 'a machine')}",
                f"{machine['cores']} cores",
                *([str(machine["date"])] if "date" in machine else []),
            ]
        ),
        fontsize=13,
        fontweight="bold",
    )
    if sent:
        _transfers(parts[0].subplots(), sent)
    if longest:
        _passes(parts[-1].subplots(), longest, len(profile.passes))
    return figure


def _transfers(axes: Axes, sent: dict[str, Points]) -> None:
    axes.set_title(
        "Transfers: means, bars from the 10th to the 90th percentile; "
        "lines: latency + bytes ÷ bandwidth",
        loc="left",
        fontsize=10,
    )
    for number, (name, points) in enumerate(sent.items()):
        latency, bandwidth = fit(points)
        rate = f", {nbytes(bandwidth)}/s" if bandwidth < float("inf") else ""
        color = f"C{number % 10}"
        sizes = np.array([size for size, _ in points], dtype=float)
        _bars(axes, sizes, [timing for _, timing in points], color, False)
        busy = [(size, timing.busy_s) for size, timing in points if timing.busy_s is not None]
        if busy:
            axes.plot(*zip(*busy, strict=True), "^", color=color, fillstyle="none")
        curve = np.geomspace(sizes.min(), max(sizes.max(), 2 * sizes.min()), 200)
        label = f"{name}: {seconds(latency)}{rate}"
        axes.plot(curve, latency + curve / bandwidth, color=color, linewidth=1.2, label=label)
    if any(timing.busy_s is not None for points in sent.values() for _, timing in points):
        axes.plot([], [], "^", color="grey", fillstyle="none", label="while all ranks compute")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: nbytes(value))
    axes.yaxis.set_major_formatter(lambda value, _: seconds(value))
    axes.set_xlabel("bytes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


def _passes(axes: Axes, passes: list[tuple[str, Timing]], count: int) -> None:
    which = f"the {len(passes)} longest of {count}" if count > len(passes) else f"all {count}"
    axes.set_title(f"Passes, {which}: mean, 10th to 90th percentile", loc="left", fontsize=10)
    places = np.arange(len(passes), dtype=float)
    _bars(axes, places, [timing for _, timing in passes], "C0", True)
    axes.set_yticks(places, [shortened(key) for key, _ in passes], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value) if value else "0")
    axes.grid(axis="x", alpha=0.3)


def _bars(axes: Axes, at: Floats, timings: list[Timing], color: str, across: bool) -> None:
    """Draw a dot at each mean and a bar from the 10th to the 90th percentile."""
    means = np.array([timing.mean_s for timing in timings])
    low = np.array([timing.p10_s for timing in timings])
    high = np.array([timing.p90_s for timing in timings])
    spread = np.maximum([means - low, high - means], 0.0)
    style: dict[str, Any] = {"fmt": "o", "markersize": 4, "elinewidth": 1.2, "capsize": 2}
    if across:
        axes.errorbar(means, at, xerr=spread, color=color, **style)
    else:
        axes.errorbar(at, means, yerr=spread, color=color, **style)

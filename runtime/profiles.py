"""Keeping a measured profile, with what an older one of the same machine has besides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import load_profile, save_profile
from simulator.cluster.timing import Points
from simulator.experiment.section import ExperimentError

OF_TRANSFERS = ("transfer_cores", "transfer_loss", "busy_ranks", "queue_s", "wake_s", "wake_busy_s")
"""What one rank cannot tell."""


def keep_profile(profile: Profile, path: Path) -> Profile:
    """Save `profile`, with what an older one of the same machine has besides."""
    if path.exists():
        try:
            older = load_profile(path)
        except ExperimentError:
            older = None
        if older and older.place == profile.place:
            if profile.capacity is None:  # too few ranks to tell
                profile = replace(profile, capacity=older.capacity)
            if not profile.messages:  # one rank, which tells nothing of transfers
                profile = replace(profile, **{name: getattr(older, name) for name in OF_TRANSFERS})
            elif older.busy_ranks != profile.busy_ranks:
                older = older.without_busy()
            profile = replace(
                profile,
                passes=older.passes | profile.passes,
                collectives=_merged(older.collectives, profile.collectives),
                messages=sorted((dict(older.messages) | dict(profile.messages)).items()),
                peak_flops=older.peak_flops
                | {
                    dtype: max(peak, older.peak_flops.get(dtype, 0.0))
                    for dtype, peak in profile.peak_flops.items()
                },
            )
    save_profile(profile, path)
    return profile


def _merged(
    older: dict[str, dict[int, Points]], newer: dict[str, dict[int, Points]]
) -> dict[str, dict[int, Points]]:
    """Points by operation and group size: of equal size the newer ones."""
    result = {op: dict(sizes) for op, sizes in older.items()}
    for op, sizes in newer.items():
        for size, points in sizes.items():
            known = result.setdefault(op, {})
            known[size] = sorted((dict(known.get(size, [])) | dict(points)).items())
    return result

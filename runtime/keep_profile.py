"""Keep a measured profile, with what an older one of the same machine has besides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import load_profile, save_profile
from simulator.cluster.timing import Points
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op

OF_TRANSFERS = ("transfer_cores", "transfer_loss", "busy_ranks", "queue_s", "wake_s", "wake_busy_s")
"""The fields that only a run of several ranks can measure."""


def keep_profile(profile: Profile, path: Path) -> Profile:
    """Save `profile` with what an older one of the same machine at `path` has besides.

    Returns:
        The profile that was saved.

    Raises:
        OSError: it cannot be written.
    """
    profile = with_older(profile, path)
    save_profile(profile, path)
    return profile


def with_older(profile: Profile, path: Path) -> Profile:
    """Return `profile` with what an older one of the same machine at `path` has besides.

    A file that is missing or damaged, or of another machine, adds nothing.
    """
    if not path.exists():
        return profile
    try:
        older = load_profile(path)
    except ExperimentError:
        return profile
    if (older.measured_on, older.ranks_per_host) != (profile.measured_on, profile.ranks_per_host):
        return profile
    if profile.capacity is None:  # too few ranks to tell
        profile = replace(profile, capacity=older.capacity)
    if not (profile.messages or profile.remote_messages):  # one rank: nothing of transfers
        profile = replace(profile, **{name: getattr(older, name) for name in OF_TRANSFERS})
    elif older.busy_ranks != profile.busy_ranks:
        older = older.without_busy()
    return replace(
        profile,
        passes=older.passes | profile.passes,
        collectives=_merged(older.collectives, profile.collectives),
        messages=sorted((dict(older.messages) | dict(profile.messages)).items()),
        remote_collectives=_merged(older.remote_collectives, profile.remote_collectives),
        narrow_collectives={
            dtype: _merged(
                older.narrow_collectives.get(dtype, {}), profile.narrow_collectives.get(dtype, {})
            )
            for dtype in sorted(older.narrow_collectives | profile.narrow_collectives)
        },
        remote_messages=sorted(
            (dict(older.remote_messages) | dict(profile.remote_messages)).items()
        ),
        peak_flops=older.peak_flops
        | {
            dtype: max(peak, older.peak_flops.get(dtype, 0.0))
            for dtype, peak in profile.peak_flops.items()
        },
    )


def _merged(
    older: dict[Op, dict[int, Points]], newer: dict[Op, dict[int, Points]]
) -> dict[Op, dict[int, Points]]:
    """Join points by operation and group size; of two of one size the newer is taken."""
    result = {op: dict(sizes) for op, sizes in older.items()}
    for op, sizes in newer.items():
        for size, points in sizes.items():
            known = result.setdefault(op, {})
            known[size] = sorted((dict(known.get(size, [])) | dict(points)).items())
    return result

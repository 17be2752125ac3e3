"""Profiles as JSON files: where they are kept, how they are read, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from simulator.cluster.profile import Profile
from simulator.cluster.timing import Points, Timing, check_numbers
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op

FORMAT = "twinline-profile-5"


def default_path(experiment: Experiment) -> Path:
    """Return where this user's profile of this machine is kept.

    CPUs have one profile; GPUs have one for each number of ranks on a GPU.
    """
    device, sharing = experiment.run.device, experiment.cluster.ranks_per_device
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = "profile.json" if device == "cpu" else f"profile-{device}-{sharing}.json"
    return Path(cache) / "twinline" / name


def save_profile(profile: Profile, path: str | Path) -> None:
    """Write `profile` as JSON, the whole file or none of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(
        json.dumps({"format": FORMAT, **asdict(profile)}, indent=1), encoding="utf-8"
    )
    partial.replace(path)


def load_profile(path: str | Path) -> Profile:
    """Return the profile that a file holds.

    Raises:
        ExperimentError: the file is unreadable or not a profile; one line.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExperimentError(
            f"cluster.profile = {str(path)!r}: {error.strerror or error}"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ExperimentError(f"cluster.profile = {str(path)!r}: truncated or not JSON") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ExperimentError(f"cluster.profile = {str(path)!r}: not a {FORMAT} file")
    try:
        return parse_profile(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ExperimentError(
            f"cluster.profile = {str(path)!r}: damaged: {type(error).__name__}: {error}"
        ) from None


def parse_profile(data: dict[str, Any]) -> Profile:
    """Return the profile of a JSON object.

    Raises:
        KeyError, TypeError, ValueError: the object is damaged.
    """
    data = dict(data)
    data["passes"] = {key: Timing.parse(value) for key, value in data["passes"].items()}
    data["messages"] = _points(data["messages"])
    data["collectives"] = _collectives(data["collectives"])
    data["remote_messages"] = _points(data.get("remote_messages", []))
    data["remote_collectives"] = _collectives(data.get("remote_collectives", {}))
    data["narrow_collectives"] = {
        dtype: _collectives(of_type)
        for dtype, of_type in data.get("narrow_collectives", {}).items()
    }
    profile = Profile(**data)
    positive = [profile.machine["cores"], *profile.peak_flops.values(), *chain(*profile.rounds)]
    positive += [profile.busy_ranks, profile.ranks_per_device]
    lost = profile.transfer_loss or 0.0
    if profile.capacity is not None:
        positive.append(profile.capacity)
    host = [profile.issue_s, profile.queue_s, profile.wake_s, profile.transfer_cores]
    host += [profile.wake_collective_s or 0.0, profile.wake_busy_s or 0.0]
    check_numbers([*positive, lost, *host])
    if profile.ranks_per_host is not None:
        positive.append(profile.ranks_per_host)
    everywhere = [profile.collectives, profile.remote_collectives]
    everywhere += profile.narrow_collectives.values()
    sizes = [points for known in everywhere for of in known.values() for points in of.values()]
    if not all(positive) or not all(sizes) or not all(profile.rounds):
        raise ValueError("no cores, no FLOP/s, no ranks, or a group size without points")
    if lost >= 1:
        raise ValueError("nothing is left of passes beside transfers")
    return profile


def _collectives(data: dict[str, Any]) -> dict[Op, dict[int, Points]]:
    return {
        Op(op): {int(size): _points(points) for size, points in sizes.items()}
        for op, sizes in data.items()
    }


def _points(rows: list[Any]) -> Points:
    points = [(int(size), Timing.parse(timing)) for size, timing in rows]
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        raise ValueError("sizes do not ascend")
    return points

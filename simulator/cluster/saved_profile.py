"""The profile that was kept for this machine, read where somebody asks for it."""

from __future__ import annotations

import socket

from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, load_profile
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError


def saved_profile(experiment: Experiment, notes: list[str] | None = None) -> Profile | None:
    """Return this machine's saved profile; None if there is none for `experiment`.

    An experiment that names a cluster, or is paced, has no use for one.

    Args:
        experiment: its device and number of ranks on a device say which profile.
        notes: gets a line if the profile is damaged, which is ignored otherwise.
    """
    choice, path = experiment.cluster, default_path(experiment)
    if experiment.is_for_cluster or not path.exists():
        return None
    try:
        profile = load_profile(path)
    except ExperimentError as error:
        if notes is not None:
            notes.append(f"ignored: {error}")
        return None
    here = (socket.gethostname(), experiment.run.device, choice.ranks_per_device)
    return profile if profile.measured_on == here else None

"""The cluster presets that come with the project: a file each in the folder ``presets``."""

from __future__ import annotations

from simulator.cluster.build import cluster_of
from simulator.cluster.cluster import Cluster
from simulator.cluster.file import CheckedFile, parse_cluster
from simulator.cluster.preset_files import preset_names, preset_tables, unknown_preset


def clusters() -> dict[str, Cluster]:
    """Return every cluster preset by its name."""
    return {name: load_preset(name) for name in preset_names()}


def load_preset(name: str) -> Cluster:
    """Return the preset `name`.

    Raises:
        ExperimentError: there is no such preset.
    """
    return cluster_of(read_preset(name))


def read_preset(name: str) -> CheckedFile:
    """Return the file of the preset `name`, which says everything itself.

    Raises:
        ExperimentError: there is no such preset.
    """
    where = "cluster.preset"
    if name not in preset_names():
        raise unknown_preset(name, where)
    return parse_cluster(preset_tables(name), f"{where} = {name!r}")

"""The cluster presets that come with the simulator."""

from __future__ import annotations

import tomllib
from importlib import resources

from simulator.cluster.build import cluster_of
from simulator.cluster.cluster import Cluster
from simulator.cluster.file import parse_cluster
from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import suggestion

PRESETS = resources.files("simulator.cluster") / "presets"
"""The folder of their files."""


def preset_names() -> list[str]:
    """Return the names of all presets, in order."""
    return sorted(
        entry.name[: -len(".toml")] for entry in PRESETS.iterdir() if entry.name.endswith(".toml")
    )


def clusters() -> dict[str, Cluster]:
    """Return every cluster preset by its name."""
    return {name: load_preset(name) for name in preset_names()}


def load_preset(name: str) -> Cluster:
    """Return the preset `name`.

    Raises:
        ExperimentError: there is no such preset.
    """
    names = preset_names()
    if name not in names:
        hint = suggestion(name, names)
        raise ExperimentError(f"cluster.preset = {name!r}: {hint}allowed: {', '.join(names)}")
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    return cluster_of(parse_cluster(tomllib.loads(text), f"cluster.preset = {name!r}"))

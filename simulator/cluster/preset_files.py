"""The files of the cluster presets, as they are written, and other names for presets."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import nearest_name, squashed

PRESETS = resources.files("simulator.cluster") / "presets"
"""The folder of their files."""

OTHER_NAMES = {
    "v100": "dgx-v100",
    "dgx1": "dgx-v100",
    "a100": "dgx-a100-80gb",
    "dgxa100": "dgx-a100-80gb",
    "h100": "dgx-h100",
    "h200": "dgx-h200",
    "p4de": "aws-p4de",
    "p4de24xlarge": "aws-p4de",
    "p5": "aws-p5",
    "p548xlarge": "aws-p5",
    "core": "laptop",
    "cpu": "laptop",
}
"""Presets by names of their devices and other short names, without case and punctuation."""


def preset_names() -> list[str]:
    """Return the names of all presets, in order."""
    return sorted(
        entry.name[: -len(".toml")] for entry in PRESETS.iterdir() if entry.name.endswith(".toml")
    )


def preset_meant(name: str, key: str) -> str:
    """Return the preset that `name`, the value of `key`, is a name or a short name of.

    Raises:
        ExperimentError: there is none.
    """
    names = preset_names()
    if name in names:
        return name
    meant = OTHER_NAMES.get(squashed(name))
    if meant is None:
        raise unknown_preset(name, key)
    return meant


def unknown_preset(name: str, key: str) -> ExperimentError:
    """Return the refusal of a preset that does not exist, with the one that was probably meant."""
    names = preset_names()
    meant = OTHER_NAMES.get(squashed(name)) or nearest_name(name, [*names, *OTHER_NAMES])
    hint = f"did you mean {OTHER_NAMES.get(meant, meant)!r}? " if meant else ""
    return ExperimentError(f"{key} = {name!r}: {hint}allowed: {', '.join(names)}")


@cache
def preset_text(name: str) -> str:
    """Return the text of the file of a preset that exists."""
    return (PRESETS / f"{name}.toml").read_text(encoding="utf-8")


def preset_tables(name: str) -> dict[str, Any]:
    """Return the tables of the file of a preset that exists."""
    return tomllib.loads(preset_text(name))

"""The experiment file: workload, parallel plan, cluster and run, in TOML.

Every key is checked; a mistake is an :class:`ExperimentError` whose one line names the
key, the value and what is allowed. ``docs/experiment.md`` is the reference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment.workload import IMAGE_MODELS
from simulator.strategies.gradients.zero import check as check_zero
from simulator.strategies.plan_checks import check_batch, check_devices, check_parallel
from simulator.workloads.checks import check_attention, check_keys, check_size
from simulator.workloads.degrees import check_degrees

DEFAULT: dict[str, Any] = {
    "workload": {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 128},
    "parallel": {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
}
"""The experiment that runs without a file: two ranks, a step of about a second."""


def parse(data: dict[str, Any]) -> Experiment:
    """Check a nested dict and return the experiment it describes.

    Raises:
        ExperimentError: unknown key, wrong type or impossible value.
    """
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(_explain(error)) from None
    check_keys(experiment.workload)
    check_parallel(experiment.parallel)
    check_zero(experiment)
    check_batch(experiment)
    check_degrees(experiment)
    check_attention(experiment)
    check_size(experiment)
    check_devices(experiment)
    given = [key for key in ("preset", "file", "profile") if getattr(experiment.cluster, key)]
    if len(given) > 1:
        raise ExperimentError(
            f"cluster.{given[1]} = {getattr(experiment.cluster, given[1])!r}: "
            f"cluster.{given[0]} is set too; give one of them"
        )
    return experiment


def load(path: str | None, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment from the TOML file `path` (None: the built-in default).

    `overrides` are ``dotted.key=value`` strings, the value in TOML (quotes optional).
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ExperimentError(f"{path}: {error.strerror or error}") from None
        except ValueError as error:
            raise ExperimentError(f"{path}: not TOML: {error}") from None
    for override in overrides:
        _apply_override(data, override)
    return parse(_with_default(data) if path is None else data)


def with_overrides(experiment: Experiment, overrides: Iterable[str]) -> Experiment:
    """The same with what `overrides` say instead (see `load`).

    Raises:
        ExperimentError: see `parse`.
    """
    data = experiment.model_dump(exclude_unset=True)
    for override in overrides:
        _apply_override(data, override)
    return parse(data)


def _with_default(given: dict[str, Any]) -> dict[str, Any]:
    """The built-in experiment with what is given instead; its shape is no image model's."""
    workload = given.get("workload", {})
    shaped = workload.get("model") not in IMAGE_MODELS and "size" not in workload
    default = DEFAULT if shaped else DEFAULT | {"workload": {}}
    return given | {section: keys | given.get(section, {}) for section, keys in default.items()}


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not separator or not dot or not name:
        raise ExperimentError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except ValueError:  # not TOML: the text itself
        value = text.strip()
    keys = data.setdefault(section, {})
    if not isinstance(keys, dict):
        raise ExperimentError(f"{section} = {keys!r}: expected a table [{section}]")
    keys[name] = value


def _explain(error: ValidationError) -> str:
    """One line for the first mistake: key, value, what is allowed."""
    first = error.errors()[0]
    location = first["loc"]
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        section = getattr(Experiment(), str(location[0])) if len(location) > 1 else Experiment()
        return f"{key}: unknown key; known here: {', '.join(type(section).model_fields)}"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{key} = {first['input']!r}: expected a table [{key}]"
    allowed = (
        first["msg"]
        .replace("Input should be", "allowed:")
        .replace("a valid tuple", "a valid list")
        .replace("Input should", "allowed: should")
    )
    return f"{key} = {first['input']!r}: {allowed}"

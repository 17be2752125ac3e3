"""The experiment file: workload, parallel plan, cluster and run, in TOML.

Every key is checked; a mistake is an :class:`ExperimentError` whose one line names the
key, the value and what is allowed. ``docs/experiment.md`` is the reference.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simulator.cluster.preset_files import preset_names
from simulator.experiment.check_registry import register_checks
from simulator.experiment.checks import (
    check_batch,
    check_devices,
    check_expert_ranks,
    check_one_cluster,
    check_rank_order,
    check_speeds,
)
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.experiment import Experiment
from simulator.experiment.host_choice import check_host
from simulator.experiment.learning_rate import check_learning_rate
from simulator.experiment.model_family import FAMILIES
from simulator.experiment.model_sizes import SIZES
from simulator.experiment.parallel import Parallel
from simulator.experiment.run import Run
from simulator.experiment.section import ExperimentError, Section
from simulator.experiment.spelling import (
    canonical_key,
    canonical_value,
    nearest_name,
    register_values,
)
from simulator.experiment.workload import Workload
from simulator.strategies.gradients.ad_psgd import check as check_pairs
from simulator.strategies.gradients.asynchronous import check as check_workers
from simulator.strategies.gradients.compression_checks import check as check_compression
from simulator.strategies.gradients.diloco import check as check_outer_steps
from simulator.strategies.gradients.fragments import check as check_fragments
from simulator.strategies.gradients.gossip import check as check_gossip
from simulator.strategies.gradients.local_steps import check as check_local_steps
from simulator.strategies.gradients.parameter_compression import check as check_shards
from simulator.strategies.gradients.parameter_server import check as check_servers
from simulator.strategies.gradients.policies import POLICIES, check_policy
from simulator.strategies.gradients.scatter_gather import check as check_scatter
from simulator.strategies.gradients.tied import check_tied
from simulator.strategies.gradients.work_queue import check as check_work_queue
from simulator.strategies.gradients.zero import check as check_zero
from simulator.strategies.schedules.checks import check_asynchronous, check_schedule
from simulator.strategies.schedules.registry import SCHEDULES
from simulator.strategies.stages.partition import check_split
from simulator.strategies.user_transforms import check_transforms
from simulator.workloads.checks import check_attention, check_keys, check_size, reads
from simulator.workloads.degrees import check_degrees

DEFAULT: dict[str, Any] = {
    "workload": {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 128},
    "parallel": {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
}
"""The experiment that runs without a file: two ranks, a step of about a second."""

TABLES: dict[str, type[Section]] = {
    "workload": Workload,
    "parallel": Parallel,
    "cluster": ClusterChoice,
    "run": Run,
}

TABLE_OF = {key: name for name, table in TABLES.items() for key in table.model_fields}
"""The table of each key."""

register_values("schedule", SCHEDULES)
register_values("policy", POLICIES)
register_values("size", SIZES)
register_values("preset", preset_names())
register_checks(
    check_keys,
    check_schedule,
    check_rank_order,
    check_split,
    check_expert_ranks,
    check_zero,
    check_servers,
    check_policy,
    check_workers,
    check_work_queue,
    check_scatter,
    check_asynchronous,
    check_local_steps,
    check_outer_steps,
    check_fragments,
    check_gossip,
    check_pairs,
    check_transforms,
    check_tied,
    check_batch,
    check_degrees,
    check_attention,
    check_size,
    check_compression,
    check_shards,
    check_devices,
    check_host,
    check_learning_rate,
    check_one_cluster,
    check_speeds,
)


def parse(data: dict[str, Any]) -> Experiment:
    """Return the experiment that a nested dict describes: a table of keys for each section.

    Raises:
        ExperimentError: unknown key, wrong type or impossible value.
    """
    return Experiment(**data)


def experiment(**keys: Any) -> Experiment:
    """Return the experiment that keys of all tables describe: ``experiment(pipeline=2)``.

    No key is in two tables, so none needs the table's name. Keys that are left out have the
    defaults of an experiment file (``docs/experiment.md``): a small gpt on one rank.

    Args:
        keys: of ``[workload]``, ``[parallel]``, ``[cluster]`` and ``[run]``; or a table's name
            with a dict of its keys.

    Raises:
        ExperimentError: see `parse`.
    """
    data: dict[str, Any] = {}
    for key, value in keys.items():
        if key in Experiment.model_fields:
            if not isinstance(value, Mapping):
                raise ExperimentError(f"{key} = {value!r}: expected a dict of keys of [{key}]")
            given = value
        else:
            key, given = table_of(key), {key: value}
        table = data.setdefault(key, {})
        if twice := table.keys() & given:
            raise ExperimentError(f"{key}.{min(twice)}: given twice, alone and in {key} = {{…}}")
        table.update(given)
    return parse(data)


def table_of(key: str) -> str:
    """Return the name of the table that has `key`, whatever its spelling.

    Raises:
        ExperimentError: no table has it.
    """
    known = canonical_key(key, TABLE_OF)
    if known not in TABLE_OF:
        near = nearest_name(key, TABLE_OF)
        hint = f"did you mean {near}? " if near else ""
        raise ExperimentError(f"{key}: unknown key; {hint}known: {', '.join(TABLE_OF)}")
    return TABLE_OF[known]


def load(path: str | None, overrides: Iterable[str] = ()) -> Experiment:
    """Read an experiment from the TOML file `path` (None: the built-in default).

    `overrides` are ``key=value`` strings, the key with or without its table, the value in TOML
    (quotes optional).
    """
    data = {} if path is None else _read(path)
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
    """Return the built-in experiment with what is given instead.

    Keys that another model does not read are left out, and its number of microbatches is not
    mixed with a size.
    """
    workload, parallel = given.get("workload", {}), given.get("parallel", {})
    default = copy.deepcopy(DEFAULT)
    model = canonical_value("model", str(workload.get("model")), FAMILIES)
    if "size" in workload:
        default["workload"] = {}
    elif model in FAMILIES:
        read = {key: value for key, value in default["workload"].items() if reads(model, key)}
        default["workload"] = read
    if "microbatch_size" in parallel and "global_batch" in workload:
        del default["parallel"]["microbatches"]
    return given | {section: keys | given.get(section, {}) for section, keys in default.items()}


def _read(path: str) -> dict[str, Any]:
    """Return the tables of an experiment file, with the known spelling of every key."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExperimentError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ExperimentError(f"{path}: not TOML: {error}") from None
    data = Experiment.canonical(data)
    return {
        name: TABLES[name].canonical(keys) if name in TABLES and isinstance(keys, dict) else keys
        for name, keys in data.items()
    }


def _apply_override(data: dict[str, Any], override: str) -> None:
    """Set the key that ``section.key=value`` or ``key=value`` names, whatever its spelling.

    Raises:
        ExperimentError: `override` is something else, or has more than one line.
    """
    if len(override.strip().splitlines()) > 1:
        line = " ".join(override.split())
        raise ExperimentError(f"--set {line}: more than one line; allowed: one --set for each key")
    key, separator, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    section = canonical_key(section, Experiment.model_fields)
    if not separator or not section or (dot and not name):
        raise ExperimentError(f"--set {override}: expected section.key=value")
    if not dot and section in Experiment.model_fields:
        raise ExperimentError(f"--set {override}: expected {section}.key=value")
    if not dot:
        section, name = table_of(section), section
    keys = data.setdefault(section, {})
    if not isinstance(keys, dict):
        raise ExperimentError(f"{section} = {keys!r}: expected a table [{section}]")
    known = TABLES[section].model_fields if section in TABLES else ()
    keys[canonical_key(name, known)] = _value(text.strip())


def _value(text: str) -> Any:
    """Return the value that `text` is in TOML; quotes may be missing, as shells take them away."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        if text.startswith("[") and text.endswith("]"):
            return [_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
        return text

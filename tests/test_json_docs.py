"""The tables of ``docs/json.md`` have the keys that ``--json`` prints, no more and no fewer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from simulator.analysis.cause import Cause
from simulator.analysis.comparison import Comparison
from simulator.analysis.learning import Learning, LearningCurve
from simulator.analysis.replay import KINDS
from simulator.cli.app import app
from simulator.timeline.statistics import LossScale, PacingReport, Statistics

PAGE = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")

MOE = "workload.model=moe-gpt workload.hidden=16 workload.sequence=8 workload.layers=2"

NAMES_OF_THINGS = {"clusters[].devices", "clusters[].peak_tflops"}
"""Objects whose keys are names of devices and dtypes."""


def documented(section: str) -> set[str]:
    """The keys in the tables of a section, with the objects that they are in."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    found = set()
    for cell in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        inside = first.rpartition(".")[0]
        for key in (first, *(f"{inside}.{name}" if inside else name for name in others)):
            parts = key.split(".")
            found |= {".".join(parts[:end]).removesuffix("[]") for end in range(1, len(parts) + 1)}
    return found


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Yield ``a``, ``a.b`` for objects in objects, ``a[].b`` for objects in lists."""
    if path in NAMES_OF_THINGS:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            name = f"{path}.{key}".removeprefix(".")
            yield name
            yield from keys(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{path}[]")


@pytest.mark.parametrize("command", ["predict", "schedules", "strategies", "clusters"])
def test_the_keys_of_a_command_are_those_of_its_section(command: str) -> None:
    arguments = ["--json"]
    if command == "predict":
        arguments += [part for key in MOE.split() for part in ("--set", key)]
        arguments += ["--set", "cluster.preset=laptop", "--set", "run.horizon=3"]
    printed = CliRunner().invoke(app, [command, *arguments])
    assert printed.exit_code == 0
    assert set(keys(json.loads(printed.stdout))) == documented(command)


def test_one_cluster_is_an_object_of_the_list_and_its_keys() -> None:
    printed = json.loads(CliRunner().invoke(app, ["clusters", "dgx-h100", "--json"]).stdout)
    found = set(keys({"keys": printed["keys"]})) | {"cluster"}
    assert found == documented("clusters NAME")
    listed = json.loads(CliRunner().invoke(app, ["clusters", "--json"]).stdout)["clusters"]
    assert printed["cluster"] in listed


def test_learning_has_the_keys_of_its_section() -> None:
    some = np.array([2.0, 1.0])
    texts = dict.fromkeys(("name", "plan", "cluster", "workload"), "")
    columns = dict.fromkeys(("time_s", "samples", "bytes_sent", "loss"), some)
    curve = LearningCurve(**texts, **columns, steps=2, step_points=1)  # type: ignore[arg-type]
    found = Learning(curves=[curve], target_loss=2.0).to_json()
    assert set(keys(found)) == documented("learn")


def names(of: type) -> set[str]:
    return {field.name for field in fields(of)}


def test_run_has_a_row_for_every_figure_over_its_iterations() -> None:
    inner = {f"pacing.{name}" for name in names(PacingReport)}
    inner |= {f"loss_scale.{name}" for name in names(LossScale)}
    assert documented("run") == names(Statistics) | inner | {"notes"}


def test_compare_has_a_row_for_every_figure_of_a_comparison() -> None:
    found = Comparison(0.0, 0.0, [], None, None, [])
    kinds = {"late_in_turn_s", "remainder_s"} | {f"{kind}_s" for kind in KINDS}
    inner = {f"attribution.{name}" for name in kinds} | {f"causes[].{key}" for key in names(Cause)}
    assert documented("compare") == found.to_json().keys() | inner | {
        "predicted",
        "measured",
        "notes",
    }

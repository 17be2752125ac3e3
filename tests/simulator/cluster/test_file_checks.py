"""Cluster files whose tables contradict each other."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from simulator.cluster.file_checks import contradictions
from simulator.cluster.preset_files import PRESETS
from simulator.cluster.tables import ClusterFile


def problems(data: dict[str, Any]) -> list[str]:
    return list(contradictions(ClusterFile.model_validate(data)))


def read(name: str = "dgx-v100") -> dict[str, Any]:
    return tomllib.loads((PRESETS / f"{name}.toml").read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(PRESETS.iterdir()), ids=lambda path: path.stem)
def test_presets_have_none(path) -> None:
    assert problems(read(path.stem)) == []


@pytest.mark.parametrize(
    ("dropped", "node", "found"),
    [
        (
            (),
            {"devices_per_switch": 3},
            ["devices_per_switch = 3: must divide the 8 devices"],
        ),
        (
            ("island",),
            {"devices_per_island": 8},
            ["devices_per_island = 8: needs a table [is"],
        ),
        (("pcie",), {"devices_per_switch": 2}, ["devices_per_switch = 2: needs a table [pcie]"]),
        (("network",), {"count": 2}, ["nics: nics, nic_gbit", "count: more than one node needs"]),
    ],
)
def test_tables_that_nodes_need(dropped: tuple[str, ...], node: dict, found: list[str]) -> None:
    data = read()
    del data["island"]["mesh"]
    for name in dropped:
        del data[name]
    data["nodes"][0] |= node
    shown = problems(data)
    assert len(shown) >= len(found)
    for problem in found:
        assert any(line.startswith(f"nodes.0.{problem}") for line in shown), shown


def test_a_switch_that_cuts_an_island() -> None:
    data = read()
    del data["island"]["mesh"]
    data["nodes"][0] |= {"devices": {"v100": 12}, "devices_per_island": 6, "devices_per_switch": 4}
    assert problems(data) == ["nodes.0.devices_per_switch = 4: islands of 6 would be cut"]


def test_every_contradiction_is_named() -> None:
    data = read()
    data["nodes"][0]["devices_per_island"] = 3
    data["collectives"]["algorithms"] = ["pairwise"]
    shown = problems(data)
    assert any(line.startswith("nodes.0.devices_per_island = 3: must divide") for line in shown)
    assert shown[-1].startswith("collectives.algorithms: 'ring' is missing")


def test_gloo_needs_algorithms_for_everything_too() -> None:
    data = read("aws-p3-2xlarge")
    data["collectives"]["gloo"]["algorithms"] = ["ring"]
    assert problems(data) == [
        "collectives.gloo.algorithms: 'pairwise' is missing; other operations need it"
    ]
    data["collectives"]["gloo"]["algorithms"] = ["ring", "pairwise", "in-network"]
    assert problems(data) == ["collectives.gloo.algorithms: 'in-network' is not for gloo"]

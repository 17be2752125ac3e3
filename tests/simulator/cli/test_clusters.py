"""The table of cluster presets."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulator.cli.app import app
from simulator.cluster.build import cluster_of
from simulator.cluster.file import read_cluster
from simulator.cluster.preset_files import preset_names, preset_tables

FILE = """
[[nodes]]
devices = { "my card" = 2 }
count = 2
nic_gbit = 25

[devices."my card"]
memory_gib = 24
memory_bandwidth_gbyte = 936
processors = 82
peak_tflops = { fp32 = 35.6, bf16 = 71.2 }

[pcie]
bandwidth_gbyte = 15.75
peer_access = false

[[network.tiers]]
nodes_per_switch = 2
"""


def test_the_command_lists_every_preset() -> None:
    found = CliRunner().invoke(app, ["clusters", "--json"])
    rows = {row["name"]: row for row in json.loads(found.output)["clusters"]}
    assert sorted(rows) == preset_names()
    assert rows["dgx-a100-80gb"]["devices"] == {"A100-SXM4-80GB": 8}
    assert (rows["dgx2"]["nics"], rows["dgx2"]["nic_gbit"]) == (8, 100)
    assert rows["dgx-v100"]["mesh"]
    assert all(row["source"] for row in rows.values())
    table = CliRunner().invoke(app, ["clusters"], env={"COLUMNS": "80"}).output
    assert all(name in table for name in rows)
    assert max(map(len, table.splitlines())) <= 80
    assert "125 fp16" in table  # of V100, which computes bf16 as fp32
    assert "15.7 bf16" not in table


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_as_a_file_that_describes_the_same(name: str) -> None:
    text = CliRunner().invoke(app, ["clusters", name]).output
    assert tomllib.loads(text) == preset_tables(name)
    assert "#" not in text


def test_a_file_is_shown_whole_with_what_was_taken(tmp_path: Path) -> None:
    path, whole = tmp_path / "mine.toml", tmp_path / "whole.toml"
    path.write_text(FILE)
    shown = CliRunner().invoke(app, ["clusters", str(path)]).output
    assert re.search(r"^matmul_efficiency = 0.89 +# as dgx-a100-80gb$", shown, re.MULTILINE)
    assert re.search(r"Simple.efficiency = 0.317 +# as dgx-a100-80gb, without peer access", shown)
    whole.write_text(shown)
    first, again = (cluster_of(read_cluster(file)) for file in (path, whole))
    assert (first.topology, first.kinds) == (again.topology, again.kinds)
    assert first.library == again.library
    assert not again.taken
    found = CliRunner().invoke(app, ["clusters", str(path), "--json"])
    described = json.loads(found.output)
    assert described["cluster"]["devices"] == {"my card": 2}
    origins = {row["key"]: row["from"] for row in described["keys"]}
    assert origins["devices.my card.tile"] == "as dgx-a100-80gb"
    assert origins["devices.my card.memory_gib"] is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("h100", "dgx-h100"),
        ("H200", "dgx-h200"),
        ("a100", "dgx-a100-80gb"),
        ("v100", "dgx-v100"),
        ("dgx1", "dgx-v100"),
        ("DGX-1", "dgx-v100"),
        ("dgx-a100", "dgx-a100-80gb"),
        ("p5", "aws-p5"),
    ],
)
def test_other_names_of_presets_are_suggested(name: str, meant: str) -> None:
    for command in (["clusters", name], ["predict", "--set", f"cluster.preset={name}"]):
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 2
        assert f"did you mean '{meant}'? allowed: a100-pcie, " in found.stderr


def test_a_name_that_is_nothing(tmp_path: Path) -> None:
    for name, message in (("tower", "or the path of a cluster file"), ("no.toml", "No such file")):
        found = CliRunner().invoke(app, ["clusters", name])
        assert (found.exit_code, message in found.stderr) == (2, True)

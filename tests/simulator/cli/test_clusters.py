"""The table of cluster presets."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from simulator.cli.app import app
from simulator.cluster.catalogue import preset_names


def test_the_command_lists_every_preset() -> None:
    found = CliRunner().invoke(app, ["clusters", "--json"])
    rows = {row["name"]: row for row in json.loads(found.output)["clusters"]}
    assert sorted(rows) == preset_names()
    assert rows["dgx-a100-80gb"]["devices"] == {"A100-SXM4-80GB": 8}
    assert (rows["dgx2"]["nics"], rows["dgx2"]["nic_gbit"]) == (8, 100)
    assert rows["dgx-v100"]["mesh"]
    assert all(row["source"] for row in rows.values())
    table = CliRunner().invoke(app, ["clusters"]).output
    assert all(name in table for name in rows)

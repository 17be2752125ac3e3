"""The command that compares schedules: text, JSON, mistakes, and its picture."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from simulator.cli.app import app


def call(*arguments: object):
    return CliRunner().invoke(app, ["schedules", *map(str, arguments)])


def test_json_and_text() -> None:
    found = json.loads(call("--stages", 2, "--microbatches", 3, "--json").output)
    assert (found["stages"], found["microbatches"], found["virtual_stages"]) == (2, 3, 2)
    rows = {(row["schedule"], row["virtual_stages"]): row for row in found["schedules"]}
    assert rows["1f1b", 1] == {
        "schedule": "1f1b",
        "virtual_stages": 1,
        "iteration_time_s": 12.0,
        "steady_step_time_s": 12.0,
        "bubble_fraction": 0.25,
        "peak_inflight_microbatches": [2.0, 1.0],
        "messages": 6,
        "versions_behind": 0,
        "asynchronous": False,
        "refused": False,
        "note": None,
    }
    refused = rows["dualpipe-v", 2]
    assert refused["refused"]
    assert refused["iteration_time_s"] is None
    assert "microbatches = 3" in refused["note"]
    shown = call("--stages", 2, "--microbatches", 3).output
    assert "2 pipeline ranks, 3 microbatches, F 1, I 1, W 1, messages 0" in shown
    assert "dualpipe-v        2  refused: microbatches = 3" in shown
    assert "10 ms" in call("--stages", 2, "--microbatches", 3, "--costs", "0.01,0.02,1,0").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stages", 0), "--stages 0: allowed: 1 or more"),
        (("--microbatches", -1), "--microbatches -1: allowed: 1 or more"),
        (("--virtual", 0), "--virtual 0: allowed: 1 or more"),
        (("--stages", 100_000), "parallel.pipeline = 100000: allowed: 1 to 65536"),
        (("--costs", "1,1,1"), "--costs 1,1,1: allowed: four numbers, F,I,W,P2P"),
        (("--costs", "1,x,1,1"), "--costs 1,x,1,1: allowed: four numbers, F,I,W,P2P"),
        (("--costs", "1,-1,1,0"), "--costs 1,-1,1,0: allowed: seconds, 0 or more"),
        (("--costs", "1,inf,1,0"), "--costs 1,inf,1,0: allowed: seconds, 0 or more"),
        (("--costs", "0,0,0,1"), "--costs 0,0,0,1: allowed: seconds, 0 or more"),
        (("--memory-limit", 0.5), "--memory-limit 0.5: allowed: 1 or more microbatches"),
        (("--gantt", "chart.txt"), "--gantt chart.txt: allowed: .png, .svg, .pdf"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith(f"twinline: {message}")
    assert result.output.count("\n") == 1


def test_the_picture_is_written(tmp_path) -> None:
    path = tmp_path / "all.png"
    result = call("--stages", 2, "--microbatches", 2, "--gantt", path)
    assert result.exit_code == 0
    assert f"wrote {path}" in result.output.replace("\n", "")
    assert path.read_bytes().startswith(b"\x89PNG")

"""compare as a user runs it: live, of saved timelines, and of files that are no timelines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import runtime.cli.app
from command_line import (
    COMPARE_KEYS,
    ERROR_KEYS,
    PREDICT_KEYS,
    RESULT_KEYS,
    check_result,
    check_run,
    one_object,
)


def test_compare_live_and_saved_are_one_comparison(call, tmp_path, environment):
    """Live, it also calibrates this machine and keeps the profile for the next prediction."""
    code, out, _ = call("compare", "tiny.toml", "--json", "--trace", "out/c.json")
    assert code == 0
    live = one_object(out)
    assert set(live) == COMPARE_KEYS
    spread = {"iteration_time_p10_s", "iteration_time_p90_s"}  # of what was calibrated
    check_result(live["predicted"], PREDICT_KEYS | spread)
    check_run(live["measured"])
    assert live["predicted"]["cluster"].startswith("profile of ")
    assert live["predicted"]["program"] == live["measured"]["program"]
    assert set(live["attribution"]) == {
        "compute_s",
        "communication_s",
        "host_gaps_s",
        "late_in_turn_s",
        "remainder_s",
    }
    times = [live[which]["iteration_time_s"] for which in ("predicted", "measured")]
    assert sum(live["attribution"].values()) == pytest.approx(times[1] - times[0])
    assert live["iteration_time_error"] == pytest.approx(times[0] / times[1] - 1)
    assert live["instruction_start_error"] >= 0
    assert live["noise_floor"] >= 0
    assert (tmp_path / "twinline-out" / "compare.png").stat().st_size > 10_000

    saved = ["--predicted", "out/c-predicted.json", "--measured", "out/c-measured.json"]
    code, out, _ = call("compare", *saved, "--json", "--gantt", "again.pdf")
    assert code == 0
    again = one_object(out)
    assert set(again) == COMPARE_KEYS
    assert {key: again[key] for key in ERROR_KEYS} == {key: live[key] for key in ERROR_KEYS}
    assert again["measured"] == live["measured"]
    assert (tmp_path / "again.pdf").read_bytes().startswith(b"%PDF")
    same = RESULT_KEYS - {"staleness", "notes"}
    assert {k: again["predicted"][k] for k in same} == {k: live["predicted"][k] for k in same}

    # The iteration time of a run and that of its median timeline are two things.
    trace = json.loads((tmp_path / saved[3]).read_text())
    trace["twinline"]["meta"]["statistics"]["iteration_time_s"] *= 2
    (tmp_path / "slow.json").write_text(json.dumps(trace))
    files = ["--predicted", str(tmp_path / saved[1]), "--measured", str(tmp_path / "slow.json")]
    slow = CliRunner().invoke(runtime.cli.app.app, ["compare", *files, "--json"])
    for result in (live["predicted"], live["measured"], one_object(slow.stdout)["measured"]):
        tokens = result["tokens_per_s"] * result["iteration_time_s"]
        assert tokens == pytest.approx(2 * 4 * 4)  # microbatches × 4 sequences × sequence

    assert (Path(environment["XDG_CACHE_HOME"]) / "twinline" / "profile.json").exists()
    code, out, _ = call("predict", "tiny.toml", "--json")
    assert one_object(out) == live["predicted"]


def test_wrong_traces_are_one_line(mistaken, tmp_path):
    invoke = CliRunner().invoke
    for name, microbatches in (("a", 2), ("b", 4)):
        arguments = ["predict", "tiny.toml", "--trace", f"{name}.json"]
        arguments += ["--set", f"parallel.microbatches={microbatches}"]
        assert invoke(runtime.cli.app.app, arguments).exit_code == 0
    trace = json.loads((tmp_path / "b.json").read_text())
    trace["twinline"]["meta"]["source"] = "measured"
    (tmp_path / "b.json").write_text(json.dumps(trace))
    whole = (tmp_path / "a.json").read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "last byte": whole[:-1],
        "other JSON": b'{"traceEvents": []}',
        "list": b"[1, 2]",
        "binary": b"\x00\xff" * 50,
        "format": whole.replace(b'"format": 2', b'"format": 99', 1),
        "missing column": whole.replace(b'"posted"', b'"posted-not"', 1),
    }
    for name, content in damaged.items():
        assert content != whole
        (tmp_path / "bad.json").write_bytes(content)
        for pair in (("bad.json", "a.json"), ("a.json", "bad.json")):
            line = mistaken("compare", "--predicted", pair[0], "--measured", pair[1])
            assert "bad.json" in line, name
    for pair in (("a.json", "a.json"), ("b.json", "b.json"), ("b.json", "a.json")):  # swapped
        line = mistaken("compare", "--predicted", pair[0], "--measured", pair[1])
        assert "allowed: " in line
    assert "not the same program" in mistaken(
        "compare", "--predicted", "a.json", "--measured", "b.json"
    )
    assert "go together" in mistaken("compare", "--predicted", "a.json")
    assert "go together" in mistaken(
        "compare", "tiny.toml", "--predicted", "a.json", "--measured", "a.json"
    )

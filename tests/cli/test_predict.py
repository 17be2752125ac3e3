"""predict as a user runs it: without torch, on any terminal, and with files that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import PREDICT_KEYS, ROOT, TINY, TWINLINE, check_result, one_object


def test_plain_characters_where_there_are_no_others(call):
    code, out, _ = call("predict", "tiny.toml", PYTHONIOENCODING="ascii")
    assert code == 0
    assert out.isascii()
    assert "| rank |" in out
    code, _, errors = call("predict", "--set", "workload.hidden=×", PYTHONIOENCODING="ascii")
    assert code == 2
    assert errors.startswith("twinline: workload.hidden = 'x'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "tiny.toml"),
        ("predict", "--json"),
        ("program",),
        ("clusters",),
        ("--help",),
        ("--version",),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_and_costs_no_file(environment, tmp_path, arguments):
    (tmp_path / "tiny.toml").write_text(TINY)
    traced = arguments[0] == "predict"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TWINLINE, *arguments, *(["--trace", "t.json"] if traced else [])],
            cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    line = "twinline: standard output: No space left on device"
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr
    assert (tmp_path / "t.json").exists() == traced


def test_predict_needs_no_torch(call, tmp_path):
    (tmp_path / "stub" / "torch").mkdir(parents=True)
    (tmp_path / "stub" / "torch" / "__init__.py").write_text("raise ImportError('no torch')\n")
    path = os.pathsep.join((str(tmp_path / "stub"), ROOT))
    module = (sys.executable, "-m", "simulator")
    results = []
    for command in (module, TWINLINE):
        words = ("predict", "tiny.toml", "--json", "--set", "cluster.preset=laptop")
        code, out, errors = call(*words, command=command, PYTHONPATH=path)
        assert code == 0, errors
        results.append(one_object(out))
        check_result(results[-1], PREDICT_KEYS)
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trace", "tiny.toml"), "--trace tiny.toml: is an input, too"),
        (("--gantt", "a.png", "--trace", "./a.png"), "a.png: is the file of --gantt, too"),
        (("--trace", "tiny.toml/a.json"), "tiny.toml is not a folder"),
        (("--trace", "other.toml"), "--trace other.toml: allowed: .json"),
        (("--trace", os.devnull), "is not a regular file"),
    ],
)
def test_outputs_replace_nothing_else(mistaken, tmp_path, arguments, says):
    assert says in mistaken("predict", "tiny.toml", *arguments)
    assert (tmp_path / "tiny.toml").read_text() == TINY
    assert not (tmp_path / "a.png").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_picture_that_cannot_be_written_is_refused_before_any_work(mistaken):
    line = mistaken("predict", "tiny.toml", "--gantt", "/proc/x.png")
    assert line.startswith("twinline: --gantt /proc/x.png: ")

"""A mistake is one line, whatever the command."""

from __future__ import annotations

import importlib.util

import pytest

SETTINGS = [
    # --set, what the line must name
    ("parallel.pipelines=2", ["parallel.pipelines", "pipeline"]),
    ("paralel.pipeline=2", ["paralel", "parallel"]),
    ("parallel.pipeline=0", ["parallel.pipeline = 0", "1"]),
    ("parallel.pipeline=9", ["parallel.pipeline = 9", "3"]),
    ("parallel.pipeline=two", ["parallel.pipeline = 'two'", "whole number"]),
    ("parallel.schedule=zigzag", ["parallel.schedule = 'zigzag'", "1f1b"]),
    ("parallel.schedule=csv:missing.csv", ["missing.csv", "No such file"]),
    ("parallel.microbatches=2.5", ["parallel.microbatches = 2.5"]),
    ("parallel.bucket_mb=-1", ["parallel.bucket_mb = -1"]),
    ("workload.dtype=fp8", ["workload.dtype = 'fp8'", "fp32"]),
    ("workload.global_batch=7", ["workload.global_batch = 7", "multiple of"]),
    ("workload.forward=0.1", ["workload.forward", "unit"]),
    ("run.iterations=0", ["run.iterations = 0"]),
    ("run.pace=nan", ["run.pace"]),
    ("run.device=tpu", ["run.device = 'tpu'", "cpu"]),
    ("cluster.preset=abacus", ["cluster.preset = 'abacus'", "laptop"]),
    ("cluster.profile=missing.json", ["missing.json", "No such file"]),
    ("nonsense", ["nonsense", "section.key=value"]),
]


@pytest.mark.parametrize("command", ["predict", "run"])
@pytest.mark.parametrize(("setting", "named"), SETTINGS, ids=[s for s, _ in SETTINGS])
def test_a_wrong_setting_is_one_line_that_names_it(mistaken, monkeypatch, command, setting, named):
    def started(*_, **__):
        raise AssertionError("processes were started")

    monkeypatch.setattr("runtime.launch.launcher.subprocess.Popen", started)
    line = mistaken(command, "tiny.toml", "--set", setting)
    for text in named:
        assert text in line


@pytest.mark.parametrize("command", ["run", "compare", "calibrate"])
def test_without_torch_the_runtime_says_how_to_get_it(mistaken, monkeypatch, command):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else known(name)
    )
    assert "torch is not installed: pip install" in mistaken(command, "tiny.toml")


def test_wrong_files_are_one_line(mistaken, tmp_path):
    (tmp_path / "broken.toml").write_text("[workload\nmodel = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "latin.toml").write_bytes('[workload]\nmodel = "mlp" # caf\xe9\n'.encode("latin-1"))
    assert "broken.toml: not TOML" in mistaken("predict", "broken.toml")
    assert "binary.toml" in mistaken("run", "binary.toml")
    assert "latin.toml" in mistaken("compare", "latin.toml")
    assert "nowhere.toml: No such file" in mistaken("calibrate", "nowhere.toml")
    assert "--gantt" in mistaken("predict", "tiny.toml", "--gantt", "chart.bmp")
    assert "--trace" in mistaken("run", "tiny.toml", "--trace", tmp_path)
    (tmp_path / "file").write_text("")
    assert "--trace file" in mistaken("run", "tiny.toml", "--trace", "file/below/x.json")
    assert "'unit'" in mistaken("calibrate", "--set", "workload.model=unit")

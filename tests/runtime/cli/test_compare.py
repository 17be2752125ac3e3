"""The command ``compare`` says what its measurement ran on."""

from __future__ import annotations

import functools

from typer.testing import CliRunner

from runtime.cli.app import app
from runtime.execution import comparing


def test_the_measurement_says_what_it_ran_on(workers, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = functools.partial(comparing.compare, workers=workers)
    monkeypatch.setattr(comparing, "compare", ours)
    plan = ["model=mlp", "layers=2", "microbatches=2", "hidden=16", "iterations=2", "warmup=1"]
    arguments = [word for key in plan for word in ("--set", key)]
    found = CliRunner().invoke(app, ["compare", *arguments])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("measured on CPU cores of this machine")

"""A rank that torchrun started wrongly says so in one line, once a host."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from runtime.torchrun import app

TWO = ["--set", "parallel.pipeline=2"]


def refusal() -> str:
    found = CliRunner().invoke(app, TWO)
    assert (found.exit_code, found.stdout) == (2, "")
    return found.stderr


def test_torchrun_with_the_wrong_number_of_ranks_is_one_line(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank prints it; without torchrun the command says how to start it."""
    monkeypatch.chdir(tmp_path)
    assert "torchrun --nproc-per-node" in refusal()
    monkeypatch.setenv("RANK", "0")
    assert "torchrun --nproc-per-node" in refusal()
    for name, value in {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    line = refusal()
    assert "2 ranks; torchrun started 3" in line
    assert line.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # each host says it once
    assert refusal() == ""

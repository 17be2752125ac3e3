"""The commands as a user runs them: in processes of their own, or in this one for mistakes."""

from __future__ import annotations

import os
import subprocess

import pytest
from typer.testing import CliRunner

import runtime.cli.app
from command_line import ROOT, TINY, TWINLINE


@pytest.fixture(scope="session")
def matplotlib_cache(tmp_path_factory):
    """Building matplotlib's font cache takes seconds: once, not in every new home."""
    return tmp_path_factory.mktemp("matplotlib")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, matplotlib_cache):
    """Nothing of the user's: home, cache and temporary files are of these tests."""
    home = tmp_path_factory.mktemp("home")
    (home / "tmp").mkdir()
    return os.environ | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(home / "tmp"),
        "MPLCONFIGDIR": str(matplotlib_cache),
        "MPLBACKEND": "agg",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PYTHONPATH": ROOT,
    }


@pytest.fixture
def call(environment, tmp_path):
    """Run a command in an empty folder that holds tiny.toml; (exit code, stdout, stderr)."""
    (tmp_path / "tiny.toml").write_text(TINY)

    def call(*arguments, command=TWINLINE, **more):
        done = subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def mistaken(tmp_path, monkeypatch):
    """Invoke a command in this process; asserts exit code 2 and returns the one line."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def mistaken(*arguments, app=runtime.cli.app.app):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("twinline: ")
        return result.stderr

    return mistaken

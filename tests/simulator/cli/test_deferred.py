"""A command is imported when it is called, and has its summary before."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from simulator.cli.application import command_line

GREET = '''
"""The command ``greet``."""

raise_when_imported = 1 / {number}


def other() -> None:
    """Do something else."""


def greet(name: str) -> None:
    """Greet
    somebody.

    By name.
    """
    print(f"hello {{name}}")
'''


@pytest.fixture
def greet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a command; importing it fails until its number is not 0."""
    path = tmp_path / "greet.py"
    path.write_text(GREET.format(number=0), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "greet", raising=False)
    return path


def invoke(app: typer.Typer, *arguments: str) -> str:
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.stderr
    return found.stdout


def test_a_command_is_imported_when_it_is_called(greet: Path) -> None:
    app = command_line("words", "Say something.", ["greet"])
    assert invoke(app, "--help").endswith("\nCommands:\n  greet  Greet somebody.\n")
    with pytest.raises(ZeroDivisionError):
        invoke(app, "greet", "Ann")
    greet.write_text(GREET.format(number=100), encoding="utf-8")
    assert invoke(app, "greet", "Ann") == "hello Ann\n"
    assert gc.isenabled()
    assert "Greet somebody.\n\nBy name.\n" in invoke(app, "greet", "--help")


def test_a_module_without_the_function_is_a_bug(greet: Path) -> None:
    greet.write_text("")
    app = command_line("words", "Say something.", ["greet"])
    for arguments in (["--help"], ["greet"]):
        with pytest.raises(AttributeError, match=r"'?greet'? has no (function|attribute)"):
            invoke(app, *arguments)

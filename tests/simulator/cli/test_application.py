"""Every mistake on the command line is one line of ours, with exit code 2."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from simulator.cli.app import app
from simulator.cli.application import Commands, SingleCommand
from simulator.cli.user_errors import user_errors
from simulator.experiment.section import ExperimentError

COMMANDS = ("predict", "program", "strategies", "clusters", "schedules", "compare")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *(((name, "--frobnicate"), "No such option: --frobnicate") for name in COMMANDS),
        *(((name, "a", "b"), "nexpected extra argument") for name in COMMANDS[:-1]),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("schedules", "--stages", "x"), "'--stages'"),
        (("schedules", "--memory-limit", "x"), "'--memory-limit'"),
        (("predict", "--set"), "Option '--set' requires an argument"),
        (("predict", "nowhere.toml"), "nowhere.toml: No such file or directory"),
        (("compare", "--predicted", "a.json"), "--measured"),
        (("compare", "--predicted", "a", "--measured", "b"), "a: "),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], says: str) -> None:
    found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == 2
    assert found.stdout == ""
    assert found.stderr.startswith("twinline: ")
    assert found.stderr.count("\n") == 1
    assert says in found.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_no_mistake(arguments: list[str]) -> None:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0
    assert "Usage" in found.stdout


def failing(error: BaseException, single: bool = False) -> typer.Typer:
    made = typer.Typer(cls=Commands, add_completion=False)

    @user_errors
    def command() -> None:
        raise error

    made.command("a", cls=SingleCommand if single else None)(command)
    if not single:
        made.command("b")(command)
    return made


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ExperimentError("workload.layers = 0"), 2, "twinline: workload.layers = 0\n"),
        (KeyboardInterrupt(), 130, "twinline: interrupted\n"),
        (OSError(13, "Permission denied", "x.json"), 1, "twinline: x.json: Permission denied\n"),
    ],
)
def test_what_commands_raise(error: BaseException, code: int, line: str, single: bool) -> None:
    found = CliRunner().invoke(failing(error, single), [] if single else ["a"])
    assert (found.exit_code, found.stdout, found.stderr) == (code, "", line)


def test_a_bug_is_not_reported_as_a_mistake() -> None:
    found = CliRunner().invoke(failing(ValueError("a bug")), ["a"])
    assert isinstance(found.exception, ValueError)

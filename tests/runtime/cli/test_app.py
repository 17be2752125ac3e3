"""Every command has help that fits 80 columns, with examples that use flags that exist."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import typer
from typer.testing import CliRunner

import runtime.cli.app
import runtime.torchrun
import simulator.cli.app

APPS = {
    "twinline": runtime.cli.app.app,
    "simulator": simulator.cli.app.app,
    "runtime": runtime.torchrun.app,
}
COMMANDS = {
    name: ["", *getattr(typer.main.get_command(app), "commands", ())] for name, app in APPS.items()
}


def help_of(app: typer.Typer, command: str) -> str:
    arguments = [*filter(None, [command]), "--help"]
    found = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.parametrize(("name", "command"), [(a, c) for a in APPS for c in COMMANDS[a]])
def test_help_fits_80_columns(name: str, command: str) -> None:
    text = help_of(APPS[name], command)
    assert max(map(len, text.splitlines())) <= 80
    assert "[[" not in text
    assert re.match(r"Usage: .*\n\n[A-Z]", text)
    paragraphs = text.partition("\nOptions:")[0].split("\n\n")[1:]
    for line, following in (pair for p in paragraphs for pair in pairs_of_lines(p)):
        assert len(line) + 1 + len(following.split()[0]) > 78, f"{line!r} ends early"


def pairs_of_lines(paragraph: str) -> list[tuple[str, str]]:
    """Pairs of lines of running text that follow each other."""
    lines = [line for line in paragraph.splitlines() if not line.startswith(" ")]
    return list(pairwise(lines))


def test_examples_use_what_there_is() -> None:
    examples = [
        line.split()
        for name in APPS
        for command in COMMANDS[name]
        for line in help_of(APPS[name], command).splitlines()
        if re.match(r"    twinline \w+ ", line) and "COMMAND" not in line
    ]
    assert len(examples) > 15
    for _, command, *words in examples:
        known = help_of(APPS["twinline"], command)
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"^  (-\w, )?{word}\b|^  {word},", known, re.MULTILINE), word


@pytest.mark.parametrize("name", ["twinline", "simulator"])
def test_the_version_is_said(name: str) -> None:
    found = CliRunner().invoke(APPS[name], ["--version"])
    assert (found.exit_code, found.stderr) == (0, "")
    assert re.fullmatch(r"twinline (\d+\.\d+\.\d+\S*|\(.*\))\n", found.stdout)


@pytest.mark.parametrize("name", ["twinline", "simulator"])
def test_the_list_of_commands_has_their_summaries(name: str) -> None:
    listed = " ".join(help_of(APPS[name], "").partition("\nCommands:")[2].split())
    for command in COMMANDS[name][1:]:
        paragraph = help_of(APPS[name], command).split("\n\n")[1]
        assert f"{command} {' '.join(paragraph.split())}" in listed

"""Results are printed as they are, in lines that fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from simulator.cli import console as of_console
from simulator.cli.console import busy, print_notes, stdout_console


def test_colons_are_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print("[bold]a folder[/bold] named :key: is 1 \\[of] 2")
    assert capsys.readouterr().out == "a folder named :key: is 1 [of] 2\n"


def test_notes_fit_the_terminal_and_are_no_markup() -> None:
    console = Console(file=io.StringIO(), width=24)
    print_notes(console, ["a plan of [bold] 16 ranks :smile: does not fit", "short"])
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "note: a plan of [bold]",
        "   16 ranks :smile: does",
        "   not fit",
        "note: short",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_long_work_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    shown = io.StringIO()

    def console(**keys: object) -> Console:
        return Console(file=shown, force_terminal=terminal, width=40)

    monkeypatch.setattr(of_console, "Console", console)
    with busy("predicting"):
        pass
    assert ("predicting" in shown.getvalue()) == terminal

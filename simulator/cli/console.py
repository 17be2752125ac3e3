"""The console that results are printed on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from simulator.cli.terminal import fill


class _Stdout(Console):
    """A console that leaves a closed pipe to its caller, who may have files to write."""

    def on_broken_pipe(self) -> None:
        """Raise the error again."""
        raise


def stdout_console() -> Console:
    """Return the console that results are printed on."""
    return _Stdout(highlight=False, emoji=False)  # a path may have colons; and emoji load slowly


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Show on a terminal that something is being worked on, for as long as it is."""
    console = Console(stderr=True, emoji=False)
    if not console.is_terminal:
        yield
        return
    with console.status(text, spinner="line"):  # in plain characters
        yield


def print_filled(console: Console, text: str, rest: str = "   ") -> None:
    """Print plain text in lines that fit the terminal, all but the first indented by `rest`."""
    console.print(Text(fill(text, console.width, rest=rest)), soft_wrap=True)


def print_notes(console: Console, notes: list[str]) -> None:
    """Print what the reader should know of a result, each note on lines of its own."""
    for note in notes:
        lines = fill(f"note: {note}", console.width, rest="   ")
        console.print(Text(lines[:5], "yellow") + Text(lines[5:]), soft_wrap=True)

"""The text of ``--help``: paragraphs fill the lines of a terminal, examples stay as they are."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from typer.core import TyperCommand, TyperGroup

from simulator.cli.terminal import KEPT, fill


def paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a docstring without its indentation."""
    return [part for part in inspect.cleandoc(text or "").split("\n\n") if part.strip()]


def summary(text: str | None) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(paragraphs(text)[0].split()) if paragraphs(text) else ""


def description(text: str | None, width: int) -> str:
    """Return a docstring with its paragraphs filled; lines that begin with a space stay."""
    filled = []
    for paragraph in paragraphs(text):
        blocks = groupby(paragraph.split("\n"), key=lambda line: line.startswith(" "))
        filled.append(
            "\n".join(
                "\n".join(lines) if indented else fill(" ".join(lines), width)
                for indented, lines in blocks
            )
        )
    return "\n\n".join(filled)


def two_columns(rows: Sequence[tuple[str, str]], width: int) -> str:
    """Return names with what they mean beside them."""
    column = max(len(name) for name, _ in rows)
    lines = [
        fill(text, width, f"  {name:{column}}  ", " " * (column + 4)) if text else f"  {name}"
        for name, text in rows
    ]
    return "\n".join(lines)


def write_help(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    """Write how a command is called, what it does, and its arguments, options and commands.

    Args:
        command: what is described.
        ctx, formatter: the framework's context of the call, and what it collects help in.
    """
    command.format_usage(ctx, formatter)
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is None:
            continue
        name, text = record
        if parameter.param_type_name == "argument":
            sections.setdefault("Arguments", []).append((name.split()[0], text))  # without its type
        else:
            text = text.replace("  [", " [").replace("default: ", f"default:{KEPT}")
            sections.setdefault("Options", []).append((name, text))
    if isinstance(command, TyperGroup):
        commands: dict[str, Any] = dict(command.commands)  # of our classes, which have a summary
        sections["Commands"] = [(name, c.summary()) for name, c in commands.items()]
    formatter.write(f"\n{description(command.help, formatter.width)}\n")
    for title, rows in sections.items():
        formatter.write(f"\n{title}:\n{two_columns(rows, formatter.width)}\n")


class Command(TyperCommand):
    """A command whose docstring is its help."""

    def summary(self) -> str:
        """Return what the command does, in a line."""
        return summary(self.help)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the command."""
        write_help(self, ctx, formatter)

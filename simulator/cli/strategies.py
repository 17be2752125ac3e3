"""The command ``strategies``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from simulator.cli.console import stdout_console
from simulator.cli.options import AsJson
from simulator.cli.outputs import deliver
from simulator.cli.user_errors import user_errors
from simulator.strategies import registry
from simulator.strategies.strategy import Strategy


@user_errors
def strategies(
    whole: Annotated[bool, typer.Option("--all", help="Say what each of them is, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the strategies that a plan can combine, and the keys that ask for each.

    All of them are simulated and executed. Those that installed packages declare are listed last.

    Examples:
        twinline strategies --all
        twinline predict --set parallel.data=2 --set parallel.zero=3
    """
    rows = registry.strategies()

    def show() -> None:
        if as_json:
            print(json.dumps({"strategies": [row.to_json() for row in rows]}))
        elif whole:
            print_details(stdout_console(), rows)
        else:
            print_families(stdout_console(), rows)

    deliver(show)


def print_families(console: Console, rows: Sequence[Strategy]) -> None:
    """Print a line for each strategy; those that are asked for alike share one."""
    width = name_width(rows)
    for family, members in groupby(rows, key=lambda row: row.family):
        console.print(f"[bold]{escape(family)}[/bold]")
        for form, group in groupby(members, key=lambda row: row.setting.replace(row.name, "NAME")):
            alike = list(group)
            if len(alike) == 1:
                print_line(console, alike[0], width)
            else:
                console.print(escape(f"  {form}, where NAME is"), soft_wrap=True)
                names = escape(", ".join(row.name for row in alike))
                console.print(Padding(names, (0, 0, 0, 4), expand=False))
    console.print("--all says what each is; a key is set in the file or by --set KEY=VALUE")


def print_details(console: Console, rows: Sequence[Strategy]) -> None:
    """Print two lines for each strategy: how to ask for it, and what it is."""
    width = name_width(rows)
    for family, members in groupby(rows, key=lambda row: row.family):
        console.print(f"[bold]{escape(family)}[/bold]")
        for row in members:
            print_line(console, row, width)
            console.print(Padding(escape(row.summary), (0, 0, 0, 4), expand=False))


def name_width(rows: Sequence[Strategy]) -> int:
    """Return the width of the column of names."""
    return 2 + max(len(row.name) for row in rows)


def print_line(console: Console, row: Strategy, width: int) -> None:
    """Print the name of a strategy and how to ask for it."""
    console.print(escape(f"  {row.name:{width}}{row.setting}"), soft_wrap=True)

"""The common parts of commands that start processes: a bar, exit codes, a folder for files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.launch.launcher import LaunchError, OnProgress
from simulator.cli.application import FAILED, INTERRUPTED, fail
from simulator.cli.user_errors import user_errors

OUT = Path("twinline-out")
"""The folder of files that no flag names."""


def run_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return `command` with exit code 2 for mistakes, 1 for failed runs, and 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except LaunchError as error:
            fail(str(error), FAILED)
        except KeyboardInterrupt:
            fail("interrupted; no process is left", INTERRUPTED)

    return user_errors(wrapped)


@contextlib.contextmanager
def progress_bar(first: str = "starting ranks") -> Iterator[OnProgress]:
    """Show a bar on stderr, if that is a terminal.

    Args:
        first: what is done until somebody says more.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(first, total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)

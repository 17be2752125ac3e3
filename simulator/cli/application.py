"""A command line whose every mistake is one line: ``twinline: what, where, allowed values``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simulator.cli.deferred import DeferredCommand
from simulator.cli.help import Command, write_help
from simulator.cli.terminal import allow_plain_characters, broken_stdout, give_up_stdout

MISTAKE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: a mistake of the user, something that failed, Ctrl-C."""

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""The error that the framework raises for a wrong command line (its `ClickException`)."""


def fail(message: str, code: int) -> None:
    """Print one line on stderr and end with exit code `code`."""
    print(f"twinline: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Report Ctrl-C in one line, as commands themselves do: imports before them take a while."""
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


def _give_up(error: OSError) -> int:
    """Say why stdout cannot be written; return the exit code."""
    give_up_stdout()
    if line := broken_stdout(error):
        print(f"twinline: {line}", file=sys.stderr)
    return FAILED


def _run(main: Callable[..., Any], args: Sequence[str] | None, **extra: Any) -> None:
    """Call the framework's `main`, and end the process with an exit code and at most a line."""
    allow_plain_characters()
    code: Any = 0
    given = sys.argv[1:] if args is None else list(args)
    try:
        code = main(given, **extra | {"standalone_mode": False})
    except UsageError as error:
        message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
        line = " ".join(message.split()).rstrip(".")
        print(f"twinline: {line}; see --help", file=sys.stderr)
        code = MISTAKE
    except typer.Abort:
        print("twinline: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except OSError as error:
        if not {"--help", "--version"}.intersection(given):
            raise
        code = _give_up(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _give_up(error)
    sys.exit(code if isinstance(code, int) else 0)


class Commands(TyperGroup):
    """A group of commands that reports every mistake in one line."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> None:  # type: ignore[override]
        """Run the command that `args` name, and end the process."""
        given = sys.argv[1:] if args is None else args
        _run(super().main, given or ["--help"], **extra)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the arguments of the whole."""
        with _interrupts():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Import the command that was called, and run it."""
        with _interrupts():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the whole: what it is for, and its commands."""
        write_help(self, ctx, formatter)


class SingleCommand(Command):
    """A command line of one command that reports every mistake in one line."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> None:  # type: ignore[override]
        """Run the command, and end the process."""
        _run(super().main, args, **extra)


def _print_version(wanted: bool) -> None:
    """Print which version is installed, and end, if that is what was asked for."""
    if not wanted:
        return
    from importlib import metadata  # takes as long to import as a third of the command line

    try:
        print(f"twinline {metadata.version('twinline')}")
    except metadata.PackageNotFoundError:
        print("twinline (not installed)")
    raise typer.Exit


def command_line(name: str, about: str, modules: Sequence[str]) -> typer.Typer:
    """Return a command line, with ``--version``.

    Args:
        name: of the program.
        about: the text of its help.
        modules: of its commands, each a function with the name of its module.
    """

    class OfModules(Commands):
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            for module in modules:
                self.add_command(DeferredCommand(module))

    # Without markup, help is plain text, which square brackets do not confuse.
    app = typer.Typer(name=name, cls=OfModules, add_completion=False, rich_markup_mode=None)

    @app.callback(help=about)
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version",
                callback=_print_version,
                is_eager=True,
                help="Print the version and exit.",
            ),
        ] = False,
    ) -> None: ...

    return app

"""Files that a command writes: refused before any work, written after the results are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from simulator.cli.application import FAILED
from simulator.cli.terminal import broken_stdout, give_up_stdout
from simulator.experiment.section import ExperimentError
from simulator.timeline.timeline import Timeline
from simulator.timeline.trace import save_trace

Output = tuple[Path, Callable[[Path], object]]
"""A file, and what writes it."""


def check_outputs(
    picture: Path | None,
    *others: Path | None,
    options: tuple[str, str] = ("--gantt", "--trace"),
    inputs: Sequence[str | Path | None] = (),
) -> None:
    """Refuse outputs that cannot be written or would replace something, before any work.

    An output may replace no input, no other output, and only regular files.

    Args:
        picture: file of the picture.
        others: further files.
        options: names of the options for the picture and for the others.
        inputs: files that are read.
    """
    taken = {Path(path).resolve(): "an input" for path in inputs if path is not None}
    for option, path in [(options[0], picture), *((options[1], path) for path in others)]:
        if path is None:
            continue
        if path.is_dir():
            raise ExperimentError(f"{option} {path}: is a folder; name a file")
        if path.exists() and not path.is_file():
            raise ExperimentError(f"{option} {path}: is not a regular file")
        if path.resolve() in taken:
            raise ExperimentError(f"{option} {path}: is {taken[path.resolve()]}, too")
        taken[path.resolve()] = f"the file of {option}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            with path.open("ab"):
                pass
            if new:
                path.unlink()
        except (FileExistsError, NotADirectoryError):
            raise ExperimentError(f"{option} {path}: {path.parent} is not a folder") from None
        except OSError as error:
            raise ExperimentError(f"{option} {path}: {error.strerror or error}") from None
    suffix = picture.suffix.lower() if picture else ".png"
    if suffix not in (".png", ".svg", ".pdf"):
        raise ExperimentError(f"{options[0]} {picture}: allowed: .png, .svg, .pdf")
    for path in others:
        if path is not None and path.suffix.lower() != ".json":  # a slip could cost an experiment
            raise ExperimentError(f"{options[1]} {path}: allowed: .json")


def deliver(show: Callable[[], None], outputs: Sequence[Output] = (), quiet: bool = False) -> None:
    """Show results, then write files; what fails is said at the end and costs nothing else.

    Args:
        show: prints the results on stdout, and does nothing else.
        outputs: files that are written afterwards.
        quiet: do not print which files were written, as stdout holds JSON.

    Raises:
        typer.Exit: something failed; a line on stderr says what.
    """
    problems: list[str] = []
    try:
        show()
        sys.stdout.flush()
    except OSError as error:
        give_up_stdout()
        problems.append(broken_stdout(error))
    for path, write in outputs:
        was_there = path.exists()
        try:
            write(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
        else:
            if not quiet:
                print(f"{'replaced' if was_there else 'wrote'} {path}")
    for problem in filter(None, problems):
        print(f"twinline: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(FAILED)


def timeline_outputs(
    timeline: Timeline, title: str, gantt: Path | None, trace: Path | None
) -> list[Output]:
    """Return the outputs of one timeline: its picture and its trace, where they are wanted."""

    def draw(path: Path) -> None:
        from simulator.charts.timeline import timeline_figure

        timeline_figure(timeline, title=title).save(path)

    data = [saved(timeline, trace)] if trace else []  # first: a run cannot be had again
    return data + ([(gantt, draw)] if gantt else [])


def saved(timeline: Timeline, path: Path) -> Output:
    """Return the output that saves `timeline` at `path`."""
    return path, lambda target: save_trace(timeline, target)

"""The command ``learn``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime.cli.running import OUT, progress_bar, run_errors
from runtime.learning import learning
from simulator.analysis.learning import HEADER, SMOOTHING_STEPS, Learning, target_header
from simulator.cli.console import print_filled, print_notes, stdout_console
from simulator.cli.options import AsJson, Sets
from simulator.cli.outputs import Output, check_outputs, deliver
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load


@run_errors
def learn(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE.toml…", help="Experiment files, one a plan."),
    ] = None,
    set_: Sets = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"Training steps of every worker; {learning.STEPS} if unset."
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop at this time on the cluster, not after steps."),
    ] = None,
    target_loss: Annotated[
        float | None,
        typer.Option(metavar="LOSS", help="Say when each plan's smoothed loss reaches this."),
    ] = None,
    smoothing: Annotated[
        int,
        typer.Option(metavar="STEPS", min=1, help="Steps that a smoothed loss is the mean of."),
    ] = SMOOTHING_STEPS,
    as_json: AsJson = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="The picture (.png, .svg or .pdf), or all points (.json). May be repeated.",
        ),
    ] = None,
) -> None:
    """Train plans in one process, in the order of their predicted timelines; draw their losses.

    Every worker's numerics are those of a real run with the predicted times, so that 64 workers
    need no cluster. Losses are drawn over the cluster's time, over samples, and over bytes sent.
    Without -o the picture goes to twinline-out/learn.png.

    Examples:
        twinline learn sync.toml async.toml --steps 200
        twinline learn sync.toml async.toml --until 60 --target-loss 2.5 -o loss.png
        twinline learn FILE.toml --set cluster.preset=dgx-h100 --json
    """
    if steps is not None and until is not None:
        raise ExperimentError("--steps and --until: both are given; give one of them")
    if until is not None and not 0 < until < float("inf"):
        raise ExperimentError(f"--until {until:g}: allowed: more than 0")
    given: list[str | None] = [*files] if files else [None]
    picture, data = outputs_of(output)
    check_outputs(picture, data, options=("--output", "--output"), inputs=given)
    experiments = [load(file, set_ or ()) for file in given]
    with progress_bar("predicting") as on_progress:
        found = learning.learn(
            experiments,
            steps=steps,
            until_s=until,
            target_loss=target_loss,
            names=names_of(given),
            cluster="saved",
            smoothing_steps=smoothing,
            on_progress=on_progress,
        )

    def show() -> None:
        if as_json:
            print(json.dumps(found.to_json()))
        else:
            print_learning(stdout_console(), found)

    def draw(path: Path) -> None:
        from simulator.charts.learning import learning_figure

        learning_figure(found).save(path)

    def save(path: Path) -> None:
        path.write_text(json.dumps(found.to_json(points=None)) + "\n", encoding="utf-8")

    outputs: list[Output] = [(data, save)] if data else []
    if picture:
        outputs.append((picture, draw))
    deliver(show, outputs, quiet=as_json)


def outputs_of(output: Sequence[Path] | None) -> tuple[Path | None, Path | None]:
    """Return the files of the picture and of the points.

    Raises:
        ExperimentError: two files are of one kind.
    """
    data = [path for path in output or () if path.suffix.lower() == ".json"]
    pictures = [path for path in output or () if path not in data]
    for paths in (data, pictures):
        if len(paths) > 1:
            raise ExperimentError(
                f"--output {paths[1]}: {paths[0]} is given too; give one picture and one .json"
            )
    if not output:
        pictures = [OUT / "learn.png"]
    return pictures[0] if pictures else None, data[0] if data else None


def names_of(files: Sequence[str | None]) -> list[str]:
    """Return short names of plans: those of their files, with folders where they need them."""
    paths = [Path("built-in") if file is None else Path(file).with_suffix("") for file in files]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [
        name if names.count(name) == 1 else f"{name} ({number + 1})"
        for number, name in enumerate(names)
    ]


def print_learning(console: Console, found: Learning) -> None:
    """Print a row for each plan."""
    for curve in found.curves:
        print_filled(console, f"{curve.name}: {curve.plan} on {curve.cluster}")
    print_table(console, HEADER, found.rows())
    if found.target_loss is not None:
        print_table(console, target_header(found.target_loss), found.target_rows())
    steps = found.curves[0].smoothing_steps
    print_filled(
        console,
        f"loss: mean over the last fifth, and at most {steps} steps. time: predicted, on the "
        "cluster. samples, sent: of all ranks until then; of a collective, the bytes that a ring "
        "sends.",
    )
    print_notes(console, found.notes)


def print_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of names and figures."""
    table = Table(*header)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)

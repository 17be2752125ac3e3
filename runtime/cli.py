"""The ``twinline`` command: what `simulator.cli` has, and run, compare, calibrate and validate."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.execution import calibrating, comparing, running
from runtime.execution.results import Execution
from runtime.launch.launcher import LaunchError, OnProgress
from runtime.profiles import with_older
from runtime.validation import validation
from runtime.validation.kept import Row, finished, identity
from runtime.validation.report import line_of, print_validation
from runtime.validation.suite import cases_of
from simulator.analysis.results import Result
from simulator.cli import commands as cli
from simulator.cli.commands import AsJson, File, Gantt, Sets, Trace, check_outputs, fail
from simulator.cli.tables import print_result
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, save_profile
from simulator.cluster.timing import Timing
from simulator.experiment.describe import describe_plan
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load
from simulator.timeline.trace import save_trace
from simulator.units import nbytes, seconds, shortened

OUT = Path("twinline-out")

app = typer.Typer(
    name="twinline",
    no_args_is_help=True,
    add_completion=False,
    help="Write a parallel-training strategy once: predict its timeline, run the same program "
    "for real, and compare the two.",
)
for command in (cli.predict, cli.program, cli.strategies, cli.clusters, cli.schedules):
    app.command()(command)


def run_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Exit code 2 for a user's mistake, 1 for a run that failed, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return cli.user_errors(command)(*args, **kwargs)
        except LaunchError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted; no process is left", 130)

    return wrapped


@contextlib.contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on stderr, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting ranks", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)


@app.command()
@run_errors
def run(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
) -> None:
    """Execute the experiment for real on this machine; print and save its timeline.

    Without --trace the timeline goes to twinline-out/measured.json.
    """
    trace = trace or OUT / "measured.json"
    check_outputs(gantt, trace, inputs=[file])
    experiment = load(file, set_ or ())
    with progress_bar() as on_progress:
        executed = running.run(experiment, on_progress, profile="saved")
    report_run(executed, as_json, gantt, trace)


def report_run(executed: Execution, as_json: bool, gantt: Path | None, trace: Path) -> None:
    """Save and show what a run measured."""
    timeline = executed.measurement.timeline
    save_trace(timeline, trace)
    if gantt:
        from simulator.charts.timeline import timeline_figure

        timeline_figure(timeline, title=describe_plan(executed.experiment)).save(gantt)
    if as_json:
        print(json.dumps(executed.to_json()))
        return
    console = Console(highlight=False)
    print_result(console, str(timeline.meta["source"]), executed)
    for note in executed.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    for path in filter(None, (gantt, trace)):
        console.print(f"wrote {path}")


@app.command()
@run_errors
def compare(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.json", help="Save both timelines, as OUT-predicted and OUT-measured."
        ),
    ] = None,
    predicted: Annotated[
        Path | None, typer.Option(metavar="TRACE", help="Compare a saved prediction …")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="TRACE", help="… with a saved measurement.")
    ] = None,
) -> None:
    """Predict and execute the same program; show both and the reason for the difference.

    Without --gantt and --trace, chart and timelines go to twinline-out/.
    """
    if predicted or measured:
        if not (predicted and measured) or file or set_ or trace:
            raise ExperimentError(
                "--predicted and --measured go together, and without FILE, --set and --trace"
            )
        check_outputs(gantt, inputs=[predicted, measured])
        cli.compare_saved(predicted, measured, as_json, gantt)
        return
    base = trace or OUT / "compare.json"
    paths = {
        name: base.with_name(f"{base.stem}-{name}{base.suffix or '.json'}")
        for name in ("predicted", "measured")
    }
    gantt = gantt or OUT / "compare.png"
    check_outputs(gantt, *paths.values(), inputs=[file])
    experiment = load(file, set_ or ())
    with progress_bar() as on_progress:
        outcome = comparing.compare(experiment, on_progress, keep="saved")
    results: dict[str, Result] = {
        "predicted": outcome.prediction,
        "measured": outcome.execution,
    }
    for name, path in paths.items():
        save_trace(results[name].timeline, path)
    cli.show_comparison(experiment, results, outcome.comparison, as_json, gantt, outcome.notes)
    if not as_json:
        console = Console(highlight=False)
        for note in (*outcome.prediction.notes, *outcome.execution.notes, *outcome.notes):
            console.print(f"[yellow]note:[/yellow] {escape(note)}")
        console.print(f"predicted for: {outcome.prediction.cluster.name}")
        for path in (gantt, *paths.values()):
            console.print(f"wrote {path}")


@app.command()
@run_errors
def calibrate(
    file: File = None,
    set_: Sets = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PROFILE.json", help="Default: this user's cache."),
    ] = None,
    plot: Annotated[
        Path, typer.Option("--plot", metavar="PICTURE", help="Draw it: .png, .svg or .pdf.")
    ] = OUT / "calibration.png",
) -> None:
    """Measure this machine: segment passes, messages, collectives, host overhead.

    Without -o the profile goes where predictions look for it: twinline/profile.json in
    $XDG_CACHE_HOME or ~/.cache (of GPUs profile-cuda-1.json, 1 being the ranks on each). The
    picture shows what was measured, and fitted curves.
    """
    experiment = load(file, set_ or ())
    path = output or default_path(experiment)
    check_outputs(plot, path, options=("--plot", "--output"), inputs=[file])
    with progress_bar() as on_progress:
        profile = with_older(calibrating.calibrate(experiment, on_progress), path)
    from simulator.charts.profile import profile_figure

    show_profile(Console(highlight=False), profile)
    save_profile(profile, path)
    profile_figure(profile).save(plot)
    print(f"wrote {path}\nwrote {plot}", file=sys.stderr)


def show_profile(console: Console, profile: Profile) -> None:
    """What was measured, with its spread."""
    table = Table("segment pass", "mean", "p10", "p90", "samples")
    for key, timing in profile.passes.items():
        times = (timing.mean_s, timing.p10_s, timing.p90_s)
        table.add_row(shortened(key), *(seconds(time) for time in times), str(timing.samples))
    console.print(table)
    measured = {
        f"{op.lower().replace('_', '-')}, {size} ranks": points
        for op, sizes in profile.collectives.items()
        for size, points in sizes.items()
    }
    loss = profile.transfer_loss
    caption = "alone / while all ranks compute" if loss is not None else None
    sizes = Table("bytes", "message", *measured, caption=caption, caption_justify="left")
    columns = [dict(profile.messages), *map(dict, measured.values())]
    for size in sorted(set().union(*columns)):
        sizes.add_row(nbytes(size), *(_both_ways(column.get(size)) for column in columns))
    console.print(sizes)
    if loss is not None:
        console.print(f"beside transfers passes lose {loss:.0%} of their speed")
    capacity = ""
    if profile.capacity is not None:
        many = profile.busy_ranks
        of = f"{many} rank{'s' if many > 1 else ''} on a device"
        if profile.device == "cpu":
            of = f"{profile.machine['cores']} cores"
        capacity = f"; {of} do the work of {profile.capacity:.2f}"
    console.print(
        f"host overhead {seconds(profile.issue_s)} an instruction, "
        f"{seconds(profile.queue_s)} more for a communication before it, wake-up "
        f"{seconds(profile.wake_s)}, a transfer occupies {profile.transfer_cores:.2f} of a core"
        + capacity
    )


def _both_ways(timing: Timing | None) -> str:
    """A transfer alone and, if that was measured, while all ranks compute."""
    if timing is None:
        return ""
    times = [timing.mean_s, timing.busy_s]
    return " / ".join(seconds(time) for time in times if time is not None)


@app.command()
@run_errors
def validate(
    suite: Annotated[
        str, typer.Option(metavar="SUITE", help="quick (a few minutes) or full (half an hour).")
    ] = "quick",
    ranks: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Only cases with so many ranks. May be repeated."),
    ] = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only cases with this in their name; * is anything. May be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of all cases but the paced ones: run.device=cuda. May be repeated.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the cases; run nothing.")] = False,
    as_json: AsJson = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Results, kept case by case.")
    ] = Path("twinline-validate"),
) -> None:
    """Predict and execute a suite of strategies; sum the errors up.

    A second call with the same DIR goes on where the first was interrupted.
    """
    chosen = cases_of(suite, ranks or (), cases or (), set_ or ())
    if list_:
        for case in chosen:
            print(f"{case.name}: {describe_plan(case.experiment)}")
        return
    done = len(finished(output).keys() & {identity(case) for case in chosen})
    if done:
        print(f"{output}: {done} of {len(chosen)} cases are there already", file=sys.stderr)
    try:
        with progress_bar() as on_progress:
            found = validation.validate_suite(chosen, output, show_case, on_progress)
    except KeyboardInterrupt:
        done = len(finished(output).keys() & {identity(case) for case in chosen})
        kept = f"{done} of {len(chosen)} cases are kept in {output}; the same command goes on"
        fail(f"interrupted; no process is left; {kept}", 130)
    pictures = [output / "scatter.png", output / "errors.png"]
    if found.done:
        from simulator.charts.validation import errors_figure, scatter_figure

        scatter_figure(found.done).save(pictures[0])
        errors_figure(found.done).save(pictures[1])
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        console = Console(highlight=False)
        print_validation(console, found)
        for path in (output / "cases.jsonl", *(pictures if found.done else [])):
            console.print(f"wrote {path}")
    if found.failed:
        raise typer.Exit(1)


def show_case(row: Row) -> None:
    print(line_of(row), file=sys.stderr)


def main() -> None:
    """Entry point of the ``twinline`` script."""
    app()

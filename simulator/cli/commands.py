"""The commands that need no torch: predict, program, strategies, schedules, compare of traces."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from simulator.analysis.comparison import Comparison, compare_timelines
from simulator.analysis.metrics import metrics_of
from simulator.analysis.results import Result
from simulator.cli.clusters import describe_cluster, print_clusters
from simulator.cli.contents import lines_of_contents, print_contents
from simulator.cli.mesh import print_mesh
from simulator.cli.tables import describe_case, print_comparison, print_result, print_schedules
from simulator.cluster.catalogue import load_preset, preset_names
from simulator.experiment.describe import describe_plan
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load, parse
from simulator.planner.schedules import (
    PipelineSetting,
    axis_end,
    compare_schedules,
    parse_costs,
    to_json,
)
from simulator.prediction import predict as simulated
from simulator.program.csv_text import to_csv
from simulator.program.program import Program
from simulator.strategies import registry
from simulator.strategies.lowering import lower
from simulator.timeline.trace import TraceError, load_trace, save_trace
from simulator.units import seconds

File = Annotated[
    str | None, typer.Argument(metavar="[FILE.toml]", help="Experiment; default: a built-in one.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. parallel.microbatches=8."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Gantt = Annotated[
    Path | None, typer.Option("--gantt", metavar="OUT.png", help="Draw the timeline.")
]
Trace = Annotated[
    Path | None,
    typer.Option("--trace", metavar="OUT.json", help="Save the timeline (opens in Perfetto)."),
]

app = typer.Typer(
    name="simulator",
    no_args_is_help=True,
    add_completion=False,
    help="Predict parallel-training timelines (the part of twinline that needs no torch).",
)
stderr = Console(stderr=True)


def user_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a user's mistake into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (ExperimentError, TraceError) as error:
            fail(str(error), 2)
        except OSError as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}", 1)

    return wrapped


def fail(message: str, code: int) -> None:
    print(f"twinline: {message}", file=sys.stderr)
    raise typer.Exit(code)


def check_outputs(
    picture: Path | None,
    *others: Path | None,
    options: tuple[str, str] = ("--gantt", "--trace"),
    inputs: Sequence[str | Path | None] = (),
) -> None:
    """Refuse an output that cannot be written, or would replace an input or another output,
    before any work is done.

    Args:
        options: that name the picture, and the others.
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


@app.command()
@user_errors
def predict(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
) -> None:
    """Simulate one training step and print its timeline's figures."""
    check_outputs(gantt, trace, inputs=[file])
    experiment = load(file, set_ or ())
    prediction = simulated(experiment, "saved")
    timeline, cluster = prediction.timeline, prediction.cluster.name
    if gantt:
        from simulator.charts.timeline import timeline_figure

        timeline_figure(timeline, title=f"{describe_plan(experiment)} on {cluster}").save(gantt)
    if trace:
        save_trace(timeline, trace)
    if as_json:
        print(json.dumps(prediction.to_json()))
        return
    console = Console(highlight=False)
    print_result(console, f"predicted on {cluster}", prediction)
    print_contents(console, prediction.metrics)
    for note in prediction.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    for path in filter(None, (gantt, trace)):
        console.print(f"wrote {path}")


@app.command()
@user_errors
def program(
    file: File = None,
    set_: Sets = None,
    compute_only: Annotated[
        bool,
        typer.Option("--compute-only", help="Passes only: torch.distributed.pipelining's CSV."),
    ] = False,
) -> None:
    """Print the instruction lists as CSV, one row a rank; on stderr the program's hash, the
    device mesh and who talks to whom.
    """
    experiment = load(file, set_ or ())
    lowered = lower(experiment)
    print(
        f"program {lowered.hash()}: {describe_plan(experiment)}; {lowered.num_ranks} ranks, "
        f"{len(lowered)} instructions",
        file=sys.stderr,
    )
    for line in lines_of_contents(experiment):
        print(line, file=sys.stderr)
    print_mesh(Console(stderr=True, highlight=False), experiment, lowered)
    print(to_csv(lowered, compute_only=compute_only), end="")


@app.command()
def strategies() -> None:
    """The table of what exists, simulated and executed."""
    from rich.table import Column, Table

    table = Table("strategy", Column("how to ask for it", overflow="fold"), "what it is")
    for entry in registry.strategies():
        table.add_row(entry.name, entry.setting, entry.summary)
    console = Console(highlight=False)
    console.print(table)
    console.print("All of these are simulated and executed.")
    console.print(f"clusters: {', '.join(preset_names())} (`twinline clusters`), a cluster file, ")
    console.print("or a calibrated profile")


@app.command()
def clusters(as_json: AsJson = False) -> None:
    """The table of cluster presets: devices, links, and where the figures come from."""
    rows = [describe_cluster(load_preset(name)) for name in preset_names()]
    if as_json:
        print(json.dumps({"clusters": rows}))
        return
    print_clusters(Console(highlight=False), rows)


@app.command()
@user_errors
def schedules(
    stages: Annotated[int, typer.Option(metavar="P", help="Pipeline ranks.")] = 4,
    microbatches: Annotated[int, typer.Option(metavar="M", help="Per training step.")] = 8,
    costs: Annotated[
        str, typer.Option(metavar="F,I,W,P2P", help="Seconds of a stage's passes, of a message.")
    ] = "1,1,1,0",
    virtual: Annotated[
        int, typer.Option(metavar="V", help="Stages a rank, of schedules that take several.")
    ] = 2,
    memory_limit: Annotated[
        float | None, typer.Option(metavar="X", help="Microbatches in flight, for zb-auto.")
    ] = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
) -> None:
    """Compare all pipeline schedules: time, bubble, activations, messages, staleness."""
    check_outputs(gantt)
    case = PipelineSetting(stages, microbatches, *parse_costs(costs), virtual, memory_limit)
    rows = compare_schedules(case)
    if gantt:
        timelines = {row.name: row.timeline for row in rows if row.timeline is not None}
        unit = "F" if case.in_forwards else None
        from simulator.charts.schedules import schedules_figure

        figure = schedules_figure(
            timelines, title=describe_case(case), unit=unit, until=axis_end(rows)
        )
        figure.save(gantt)
    if as_json:
        print(json.dumps(to_json(case, rows)))
        return
    console = Console(highlight=False)
    print_schedules(console, case, rows)
    if gantt:
        console.print(f"wrote {gantt}")


def compare_saved(predicted: Path, measured: Path, as_json: bool, gantt: Path | None) -> None:
    """Compare two saved traces."""
    timelines = {"predicted": load_trace(predicted), "measured": load_trace(measured)}
    for path, name, allowed in (
        (predicted, "predicted", ("predicted",)),
        (measured, "measured", ("measured", "paced")),
    ):
        source = timelines[name].meta.get("source")
        if source not in allowed:
            raise TraceError(f"--{name} {path}: holds a {source} timeline; allowed: {allowed[0]}")
    metas = [timeline.meta for timeline in timelines.values()]
    try:
        experiment = parse(metas[1]["experiment"])
    except (KeyError, ExperimentError) as error:
        raise TraceError(f"{measured}: names no experiment ({error})") from None
    lowered: Program | None = lower(experiment)
    if lowered is not None and {meta.get("hash") for meta in metas} != {lowered.hash()}:
        lowered = None  # another program, or written by another version: no attribution
    peak = metas[1].get("peak_flops")
    try:
        comparison = compare_timelines(timelines["predicted"], timelines["measured"], lowered)
    except ValueError as error:
        raise TraceError(f"{predicted} and {measured}: {error}") from None
    results = {}
    for name, timeline in timelines.items():
        metrics = metrics_of(
            timeline, experiment, peak, str(timeline.meta.get("hash")), len(timeline)
        )
        statistics = timeline.statistics
        results[name] = Result(
            timeline=timeline,
            metrics=metrics,
            moe=statistics.moe if statistics else None,
            notes=statistics.notes if statistics else [],
        )
    show_comparison(experiment, results, comparison, as_json, gantt)


def show_comparison(
    experiment: Experiment,
    results: dict[str, Result],
    comparison: Comparison,
    as_json: bool,
    gantt: Path | None,
    notes: Sequence[str] = (),
) -> None:
    """Draw and print a comparison."""
    if gantt:
        error = comparison.iteration_time_error
        from simulator.charts.timeline import comparison_figure

        figure = comparison_figure(
            results["predicted"].timeline,
            results["measured"].timeline,
            title=f"{describe_plan(experiment)}: iteration time predicted "
            f"{seconds(results['predicted'].iteration_time_s)}, measured "
            f"{seconds(results['measured'].iteration_time_s)} (error {error:+.1%})",
        )
        figure.save(gantt)
    if as_json:
        plain = {name: result.to_json() for name, result in results.items()}
        print(json.dumps(plain | comparison.to_json() | {"notes": list(notes)}))
        return
    console = Console(highlight=False)
    print_result(console, "measured", results["measured"])
    print_comparison(console, results["predicted"], results["measured"], comparison)


@app.command()
@user_errors
def compare(
    predicted: Annotated[Path, typer.Option(metavar="TRACE", help="A predicted timeline.")],
    measured: Annotated[Path, typer.Option(metavar="TRACE", help="A measured timeline.")],
    as_json: AsJson = False,
    gantt: Gantt = None,
) -> None:
    """Compare two saved timelines of the same program."""
    check_outputs(gantt, inputs=[predicted, measured])
    compare_saved(predicted, measured, as_json, gantt)


def main() -> None:
    app()

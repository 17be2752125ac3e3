"""The command ``compare`` for two saved timelines, and showing any comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from simulator.analysis.comparison import Comparison, OtherProgramError, compare_timelines
from simulator.analysis.metrics import metrics_of
from simulator.analysis.results import Result
from simulator.cli.comparison import print_comparison
from simulator.cli.console import print_notes, stdout_console
from simulator.cli.options import AsJson, Gantt
from simulator.cli.outputs import Output, check_outputs, deliver
from simulator.cli.results import print_memory_fit, print_result
from simulator.cli.user_errors import user_errors
from simulator.experiment.describe import describe_plan
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.program import Program
from simulator.strategies.lowering import lower
from simulator.timeline.trace import TraceError, load_trace
from simulator.units import seconds


@user_errors
def compare(
    predicted: Annotated[
        Path, typer.Option(metavar="TRACE", help="A timeline that predict saved.")
    ],
    measured: Annotated[Path, typer.Option(metavar="TRACE", help="A timeline that run saved.")],
    as_json: AsJson = False,
    gantt: Gantt = None,
) -> None:
    """Compare two saved timelines of the same program: errors, and the reason for them.

    Examples:
        twinline compare --predicted predicted.json --measured measured.json
    """
    check_outputs(gantt, inputs=[predicted, measured])
    compare_saved(predicted, measured, as_json, gantt)


def compare_saved(predicted: Path, measured: Path, as_json: bool, gantt: Path | None) -> None:
    """Compare two saved traces and show the result."""
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
    except OtherProgramError as error:
        raise TraceError(f"{predicted} and {measured}: {error}") from None
    results = {}
    for name, timeline in timelines.items():
        metrics = metrics_of(timeline, experiment, peak, str(timeline.meta.get("hash")))
        statistics = timeline.statistics
        results[name] = Result(
            recorded=timeline,
            metrics=metrics,
            moe=statistics.moe if statistics else None,
            notes=[*(statistics.notes if statistics else ()), *experiment.notes],
        )
    show_comparison(experiment, results, comparison, as_json, gantt)


def show_comparison(
    experiment: Experiment,
    results: dict[str, Result],
    comparison: Comparison,
    as_json: bool,
    gantt: Path | None,
    notes: Sequence[str] = (),
    predicted_for: str | None = None,
    measured: str = "measured",
    outputs: Sequence[Output] = (),
) -> None:
    """Print a comparison, then draw it and write further files.

    Args:
        experiment: plan of both timelines.
        results: results by the names ``predicted`` and ``measured``.
        comparison: what was found.
        as_json: print one JSON object.
        gantt: file of the picture.
        notes: what the reader should know of the comparison as a whole.
        predicted_for: name of the cluster that the prediction is for.
        measured: how the measurement is called, with what it ran on where that is known.
        outputs: further files.
    """

    def show() -> None:
        if as_json:
            plain = {name: result.to_json() for name, result in results.items()}
            print(json.dumps(plain | comparison.to_json() | {"notes": list(notes)}))
            return
        console = stdout_console()
        print_result(console, measured, results["measured"])
        print_comparison(console, results["predicted"], results["measured"], comparison)
        print_memory_fit(console, results["predicted"])
        of_results = [note for result in results.values() for note in result.notes]
        print_notes(console, list(dict.fromkeys([*of_results, *notes])))
        if predicted_for:
            console.print(f"predicted for: {predicted_for}")

    def draw(path: Path) -> None:
        from simulator.charts.timeline import comparison_figure

        figure = comparison_figure(
            results["predicted"].timeline,
            results["measured"].timeline,
            title=f"{describe_plan(experiment)}: iteration time predicted "
            f"{seconds(results['predicted'].iteration_time_s)}, measured "
            f"{seconds(results['measured'].iteration_time_s)} "
            f"(error {comparison.iteration_time_error:+.1%})",
        )
        figure.save(path)

    picture: list[Output] = [(gantt, draw)] if gantt else []
    deliver(show, [*picture, *outputs], quiet=as_json)

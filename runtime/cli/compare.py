"""The command ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.run import title_of
from runtime.cli.running import OUT, progress_bar, run_errors
from runtime.execution import comparing
from simulator.analysis.results import Result
from simulator.cli.compare import compare_saved, show_comparison
from simulator.cli.options import AsJson, File, Gantt, Sets
from simulator.cli.outputs import check_outputs, saved
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load


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
        Path | None,
        typer.Option(metavar="TRACE", help="Compare this saved prediction, with --measured."),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(metavar="TRACE", help="Compare this saved measurement, with --predicted."),
    ] = None,
) -> None:
    """Predict and execute the same program; show both, and the reason for the difference.

    Without --gantt and --trace, the picture and both timelines go to twinline-out/. Unless the
    experiment names a cluster, this machine is calibrated on the way. With --predicted and
    --measured two saved timelines are compared, and nothing is executed.

    Examples:
        twinline compare FILE.toml
        twinline compare FILE.toml --trace step.json
        twinline compare --predicted predicted.json --measured measured.json
    """
    if predicted or measured:
        if not (predicted and measured) or file or set_ or trace:
            raise ExperimentError(
                "--predicted and --measured go together, and without FILE, --set and --trace"
            )
        check_outputs(gantt, inputs=[predicted, measured])
        compare_saved(predicted, measured, as_json, gantt)
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
    outputs = [saved(results[name].timeline, path) for name, path in paths.items()]
    show_comparison(
        experiment, results, outcome.comparison, as_json, gantt, outcome.notes,
        outcome.prediction.cluster.name, title_of(outcome.execution), outputs,
    )  # fmt: skip

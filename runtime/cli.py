"""The ``twinline`` command: what `simulator.cli` has, and run, compare and calibrate.

torch is imported by the ranks only, so every command starts quickly.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runtime.job import Job
from runtime.launch import LaunchError, Workers
from runtime.measure import Measurement, from_json
from simulator import cli
from simulator.cli import AsJson, File, Gantt, Sets, Trace, check_outputs, fail
from simulator.cluster import Cluster, from_profile, resolve
from simulator.comparison import compare as compare_timelines
from simulator.experiment import Experiment, ExperimentError, load
from simulator.metrics import summarize
from simulator.plot import draw_timeline
from simulator.profile import Profile, default_path, load_profile, parse_profile, save_profile
from simulator.program import Program
from simulator.report import nbytes, print_result, seconds
from simulator.strategies import lower
from simulator.trace import save_trace

OUT = Path("twinline-out")

app = typer.Typer(
    name="twinline",
    no_args_is_help=True,
    add_completion=False,
    help="Write a parallel-training strategy once: predict its timeline, run the same program "
    "for real, and compare the two.",
)
for command in (cli.predict, cli.program, cli.strategies):
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


def launch(job: Job) -> dict[str, Any]:
    """Run `job` on new processes of this machine, with a progress bar on stderr."""
    if importlib.util.find_spec("torch") is None:
        raise ExperimentError("torch is not installed: pip install 'twinline[runtime]'")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
        Workers(job.experiment.world_size) as workers,
    ):
        task = bar.add_task("starting ranks", total=1.0)

        def show(share: float, what: str) -> None:
            bar.update(task, completed=share, description=what)

        return workers.run(job, show)


def measured_result(
    experiment: Experiment, program: Program, cluster: Cluster, measurement: Measurement
) -> dict[str, Any]:
    """The JSON of a measurement; also completes its timeline's metadata."""
    timeline = measurement.timeline
    peak = cli.peak_flops(experiment, cluster)
    source = "measured" if experiment.run.pace is None else "paced"
    statistics: dict[str, Any] = dict(measurement.statistics())
    timeline.meta = cli.metadata(source, experiment, program) | {
        "iterations": len(measurement.iteration_times),
        "iteration_time_s": statistics["iteration_time_s"],
        "noise_floor": measurement.noise_floor,
        "peak_flops": peak,
    }
    result = summarize(timeline, experiment, peak, program.hash(), len(program))
    total = statistics["iteration_time_s"]
    for rate in ("mfu", "hfu", "tokens_per_s"):
        if result[rate] is not None:
            result[rate] *= result["iteration_time_s"] / total
    statistics |= {
        "losses": measurement.losses,
        "parameters_norm": measurement.parameters_norm,
    }
    timeline.meta["statistics"] = statistics
    return result | statistics


@app.command()
@run_errors
def run(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
) -> None:
    """Execute the experiment for real on this machine; print and save its timeline."""
    trace = trace or OUT / "measured.json"
    check_outputs(gantt, trace)
    experiment = load(file, set_ or ())
    program = lower(experiment)
    cluster = resolve(experiment, cli.saved_profile(experiment))
    answer = launch(Job(experiment))
    report_run(experiment, program, cluster, answer, as_json, gantt, trace)


def report_run(
    experiment: Experiment,
    program: Program,
    cluster: Cluster,
    answer: dict[str, Any],
    as_json: bool,
    gantt: Path | None,
    trace: Path,
) -> None:
    """Save and show what a run measured."""
    measurement = from_json(program, answer["measurement"])
    result = measured_result(experiment, program, cluster, measurement)
    save_trace(measurement.timeline, trace)
    if gantt:
        draw_timeline(measurement.timeline, gantt, title=cli.describe_plan(experiment))
    if as_json:
        print(json.dumps(result))
        return
    console = Console(highlight=False)
    print_result(console, str(measurement.timeline.meta["source"]), result)
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
    """Predict and execute the same program, and show both with the reason for the difference."""
    if predicted or measured:
        if not (predicted and measured) or file or set_ or trace:
            raise ExperimentError(
                "--predicted and --measured go together, and without FILE, --set and --trace"
            )
        check_outputs(gantt)
        cli.compare_saved(predicted, measured, as_json, gantt)
        return
    base = trace or OUT / "compare.json"
    traces = {
        name: base.with_name(f"{base.stem}-{name}{base.suffix or '.json'}")
        for name in ("predicted", "measured")
    }
    gantt = gantt or OUT / "compare.png"
    check_outputs(gantt, *traces.values())
    experiment = load(file, set_ or ())
    program = lower(experiment)
    named = experiment.cluster.preset or experiment.cluster.profile or experiment.run.pace
    cluster = resolve(experiment) if named else None
    answer = launch(Job(experiment, calibrate=cluster is None))
    if cluster is None:
        profile = keep_profile(parse_profile(answer["profile"]), default_path())
        cluster = resolve(experiment, profile)
    measurement = from_json(program, answer["measurement"])
    timelines = {
        "predicted": cli.predicted_timeline(experiment, program, cluster)[0],
        "measured": measurement.timeline,
    }
    results = {
        "predicted": summarize(
            timelines["predicted"],
            experiment,
            cli.peak_flops(experiment, cluster),
            program.hash(),
            len(program),
        ),
        "measured": measured_result(experiment, program, cluster, measurement),
    }
    comparison = compare_timelines(
        timelines["predicted"],
        timelines["measured"],
        program,
        results["measured"]["iteration_time_s"],
        measurement.noise_floor,
    )
    for name, path in traces.items():
        save_trace(timelines[name], path)
    cli.show_comparison(experiment, timelines, results, comparison, as_json, gantt)
    if not as_json:
        console = Console(highlight=False)
        console.print(f"predicted for: {cluster.name}")
        for path in (gantt, *traces.values()):
            console.print(f"wrote {path}")


def keep_profile(profile: Profile, path: Path) -> Profile:
    """Save `profile`, with the passes that an older one of the same machine has besides."""
    if path.exists():
        try:
            older = load_profile(path)
        except ExperimentError:
            older = None
        if older and older.machine.get("hostname") == profile.machine.get("hostname"):
            profile = replace(
                profile,
                passes=older.passes | profile.passes,
                all_reduces=older.all_reduces | profile.all_reduces,
                messages=profile.messages or older.messages,
                peak_flops=older.peak_flops | profile.peak_flops,
            )
    save_profile(profile, path)
    return profile


@app.command()
@run_errors
def calibrate(
    file: File = None,
    set_: Sets = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PROFILE.json", help="Default: this user's cache."),
    ] = None,
) -> None:
    """Measure this machine: segment passes, messages, all-reduces, host overhead."""
    path = output or default_path()
    check_outputs(None, path)
    experiment = load(file, set_ or ())
    if experiment.workload.model == "unit":
        raise ExperimentError("workload.model = 'unit': has nothing to measure; allowed: mlp, gpt")
    answer = launch(Job(experiment, measure=False, calibrate=True))
    profile = keep_profile(parse_profile(answer["profile"]), path)
    show_profile(Console(highlight=False), profile)
    print(f"wrote {path}", file=sys.stderr)


def show_profile(console: Console, profile: Profile) -> None:
    """What was measured, with its spread."""
    table = Table("segment pass", "median", "p10", "p90", "samples")
    for key, timing in profile.passes.items():
        times = (timing.median_s, timing.p10_s, timing.p90_s)
        table.add_row(key, *(seconds(time) for time in times), str(timing.samples))
    console.print(table)
    sizes = Table("bytes", "message", *(f"all-reduce, {n} ranks" for n in profile.all_reduces))
    every = {size for size, _ in profile.messages}
    every.update(size for points in profile.all_reduces.values() for size, _ in points)
    columns = [dict(profile.messages), *(dict(points) for points in profile.all_reduces.values())]
    for size in sorted(every):
        sizes.add_row(nbytes(size), *(seconds(c[size]) if size in c else "" for c in columns))
    console.print(sizes)
    console.print(
        f"host overhead {seconds(profile.issue_s)} an instruction, wake-up "
        f"{seconds(profile.wake_s)}, a transfer occupies {profile.transfer_cores:.2f} of a core; "
        f"cluster: {from_profile(profile).name}"
    )


def main() -> None:
    """Entry point of the ``twinline`` script."""
    app()


if __name__ == "__main__":
    main()

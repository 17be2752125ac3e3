"""The command ``run``."""

from __future__ import annotations

import json
from pathlib import Path

from runtime.cli.running import OUT, progress_bar, run_errors
from runtime.execution import running
from runtime.execution.results import Execution
from simulator.cli.console import print_notes, stdout_console
from simulator.cli.contents import print_contents
from simulator.cli.options import AsJson, File, Gantt, Sets, Trace
from simulator.cli.outputs import check_outputs, deliver, timeline_outputs
from simulator.cli.results import print_result
from simulator.experiment.describe import describe_plan
from simulator.experiment_file import load


@run_errors
def run(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
) -> None:
    """Execute the experiment on processes of this machine, one a rank, and print what they took.

    The timeline is saved to --trace, by default to twinline-out/measured.json. For GPUs, set
    run.device=cuda. To run on several hosts, start `-m runtime` under torchrun.

    Examples:
        twinline run FILE.toml --gantt measured.png
        twinline run --set parallel.pipeline=4 --set run.iterations=20
        torchrun --nproc-per-node 2 -m runtime FILE.toml
    """
    trace = trace or OUT / "measured.json"
    check_outputs(gantt, trace, inputs=[file])
    experiment = load(file, set_ or ())
    with progress_bar() as on_progress:
        executed = running.run(experiment, on_progress, profile="saved")
    report_run(executed, as_json, gantt, trace)


def report_run(executed: Execution, as_json: bool, gantt: Path | None, trace: Path) -> None:
    """Show what a run measured, then save it."""
    timeline, experiment = executed.timeline, executed.experiment

    def show() -> None:
        if as_json:
            print(json.dumps(executed.to_json()))
            return
        console = stdout_console()
        print_result(console, title_of(executed), executed)
        print_contents(console, executed.metrics)
        print_notes(console, executed.notes)

    outputs = timeline_outputs(timeline, describe_plan(experiment), gantt, trace)
    deliver(show, outputs, quiet=as_json)


def title_of(executed: Execution) -> str:
    """Return how the figures of a run are called: whether it was paced, and where it ran."""
    return f"{executed.timeline.meta['source']} on {device_words(executed)}"


def device_words(executed: Execution) -> str:
    """Return in words what the ranks of a run computed on."""
    experiment = executed.experiment
    if experiment.run.device == "cpu":
        return "CPU cores of this machine"
    sharing = experiment.cluster.ranks_per_device
    return "GPUs of this machine" + (f", {sharing} ranks on each" if sharing > 1 else "")

"""The command ``predict``."""

from __future__ import annotations

import json

from simulator.cli.console import busy, print_notes, stdout_console
from simulator.cli.contents import print_contents
from simulator.cli.options import AsJson, File, Gantt, Sets, Trace
from simulator.cli.outputs import check_outputs, deliver, timeline_outputs
from simulator.cli.results import print_memory_fit, print_result
from simulator.cli.settled import print_links
from simulator.cli.user_errors import user_errors
from simulator.experiment.describe import describe_plan
from simulator.experiment_file import load
from simulator.prediction import predict as predicted


@user_errors
def predict(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
) -> None:
    """Simulate one training step and print its figures; needs neither torch nor the machine.

    The times are those of the cluster that the experiment names; else of this machine's saved
    profile (see calibrate); else of the laptop preset. Nothing is executed.

    Examples:
        twinline predict
        twinline predict FILE.toml --gantt timeline.png --trace timeline.json
        twinline predict --set cluster.preset=dgx-h100 --set parallel.data=8
    """
    check_outputs(gantt, trace, inputs=[file])
    experiment = load(file, set_ or ())
    with busy("predicting"):
        prediction = predicted(experiment, "saved")
    cluster = prediction.cluster.name

    def show() -> None:
        if as_json:
            print(json.dumps(prediction.to_json()))
            return
        console = stdout_console()
        print_result(console, f"predicted on {cluster}", prediction)
        print_contents(console, prediction.metrics)
        has_style = experiment.parallel.data_style != "all-reduce"  # which loads links unevenly
        if prediction.links and (has_style or experiment.run.horizon > 1):
            print_links(console, prediction.links, experiment.run.horizon)
        print_memory_fit(console, prediction)
        print_notes(console, prediction.notes)

    title = f"{describe_plan(experiment)} on {cluster}"
    outputs = timeline_outputs(prediction.timeline, title, gantt, trace)
    deliver(show, outputs, quiet=as_json)

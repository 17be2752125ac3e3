"""The command ``python -m runtime``, which torchrun starts once a rank.

The same flags as ``twinline run``. torchrun starts the ranks, on one host or several, and
ends the others when one fails; rank 0 prints and saves the measured timeline.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer

from runtime.cli.calibrate import report_profile
from runtime.cli.run import report_run
from runtime.cli.running import OUT
from runtime.execution.calibrating import check_measurable
from runtime.execution.host_memory import check_host_memory
from runtime.execution.peak_flops import peak_flops_of
from runtime.execution.results import execution_of
from runtime.execution.uneven_ranks import check_speeds_are_paced
from runtime.executor.devices import backend_of, check_devices, device_of, join
from runtime.executor.errors import failure_of
from runtime.keep_profile import with_older
from runtime.launch.job import Job
from runtime.progress import Progress
from runtime.rank.agreement import DisagreementError
from runtime.rank.device_memory import check_device_memory
from runtime.rank.session import run_job
from simulator.cli.application import SingleCommand, fail
from simulator.cli.options import AsJson, File, Gantt, Sets, Trace
from simulator.cli.outputs import check_outputs
from simulator.cluster.profile_file import parse_profile
from simulator.cluster.saved_profile import saved_profile
from simulator.experiment.describe import describe_ranks
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load
from simulator.strategies.lowering import lower


def run(
    file: File = None,
    set_: Sets = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
    trace: Trace = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="PROFILE.json",
            help="Measure passes and transfers in place of a run, and save them here.",
        ),
    ] = None,
) -> None:
    """Execute the experiment on the ranks that torchrun started, on one host or several.

    Rank 0 prints what they took and saves the timeline to --trace, by default to
    twinline-out/measured.json.

    Examples:
        torchrun --nproc-per-node 2 -m runtime FILE.toml
        torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m runtime FILE.toml
        torchrun --nproc-per-node 2 -m runtime FILE.toml --calibrate here.json
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        fail("start with `torchrun --nproc-per-node N -m runtime FILE.toml`, or `twinline run`", 2)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_host = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        if calibrate is None:
            trace = trace or OUT / "measured.json"
            check_outputs(gantt, trace, inputs=[file])
        elif as_json or gantt or trace:
            raise ExperimentError("--calibrate: allowed without --json, --gantt and --trace")
        else:
            check_outputs(None, calibrate, options=("", "--calibrate"), inputs=[file])
        experiment = load(file, set_ or ())
        if calibrate is not None:
            check_measurable(experiment)
        if experiment.world_size != world:
            raise ExperimentError(
                f"{describe_ranks(experiment)}; torchrun started {world}; allowed: "
                f"--nproc-per-node × --nnodes = {experiment.world_size}"
            )
        check_devices(experiment, on_host)  # for all ranks of this host, so that all know
        device = device_of(experiment, local)
        backend_of(experiment)
        job = Job(experiment, measure=calibrate is None, calibrate=calibrate is not None)
        program = lower(experiment)
        peak_flops = peak_flops_of(experiment, saved_profile(experiment))
        check_speeds_are_paced(experiment)
        check_host_memory(job, program, on_host)
    except ExperimentError as error:
        if local == 0:
            print(f"twinline: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    try:
        check_device_memory(job, rank, local, device)
    except ExperimentError as error:  # other devices may be large enough for their ranks
        if local % experiment.cluster.ranks_per_device == 0:
            print(f"twinline: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    torch.set_num_threads(1)
    try:
        join(experiment, None, rank, device)
        answer = run_job(job, rank, device, Progress(), lambda share, what: None)
    except ExperimentError as error:  # which all ranks raise
        if local == 0:
            print(f"twinline: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except (RuntimeError, TimeoutError) as error:  # among them ExecutionError
        if local == 0 or not isinstance(error, DisagreementError):  # which all ranks raise
            failure = failure_of(error, rank, experiment.run.timeout_s)
            print(f"twinline: {failure}", file=sys.stderr, flush=True)
        os._exit(1)  # other threads may still wait for a peer that will not come
    dist.destroy_process_group()
    if answer is not None and calibrate is not None:
        report_profile(with_older(parse_profile(answer["profile"]), calibrate), calibrate)
    elif answer is not None:
        assert trace is not None
        report_run(execution_of(experiment, program, peak_flops, answer), as_json, gantt, trace)


app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command(cls=SingleCommand)(run)

"""All commands as one command line."""

from __future__ import annotations

import typer

from runtime.cli.calibrate import calibrate
from runtime.cli.compare import compare
from runtime.cli.run import run
from runtime.cli.validate import validate
from simulator.cli.application import Commands
from simulator.cli.clusters import clusters
from simulator.cli.predict import predict
from simulator.cli.program import program
from simulator.cli.schedules import schedules
from simulator.cli.strategies import strategies

app = typer.Typer(
    name="twinline",
    cls=Commands,
    add_completion=False,
    help="Write a parallel-training strategy once: predict its timeline, run the same program "
    "for real, and compare the two.",
)
for command in (
    *(predict, run, compare, calibrate, validate),
    *(program, strategies, clusters, schedules),
):
    app.command()(command)

"""The commands that need no torch, as one command line."""

from __future__ import annotations

import typer

from simulator.cli.application import Commands
from simulator.cli.clusters import clusters
from simulator.cli.compare import compare
from simulator.cli.predict import predict
from simulator.cli.program import program
from simulator.cli.schedules import schedules
from simulator.cli.strategies import strategies

app = typer.Typer(
    name="simulator",
    cls=Commands,
    add_completion=False,
    help="Predict parallel-training timelines (the part of twinline that needs no torch).",
)
for command in (predict, program, strategies, clusters, schedules, compare):
    app.command()(command)

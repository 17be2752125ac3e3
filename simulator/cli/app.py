"""The commands that need no torch, as one command line."""

from __future__ import annotations

from simulator.cli.application import command_line
from simulator.cli.clusters import clusters
from simulator.cli.compare import compare
from simulator.cli.predict import predict
from simulator.cli.program import program
from simulator.cli.schedules import schedules
from simulator.cli.strategies import strategies

ABOUT = "Predict parallel-training timelines (the part of twinline that needs no torch)."

app = command_line("simulator", ABOUT, (predict, program, strategies, clusters, schedules, compare))

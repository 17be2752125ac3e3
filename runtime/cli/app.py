"""All commands as one command line."""

from __future__ import annotations

from runtime.cli.calibrate import calibrate
from runtime.cli.compare import compare
from runtime.cli.run import run
from runtime.cli.validate import validate
from simulator.cli.application import command_line
from simulator.cli.clusters import clusters
from simulator.cli.predict import predict
from simulator.cli.program import program
from simulator.cli.schedules import schedules
from simulator.cli.strategies import strategies

ABOUT = """Write a parallel-training strategy once: predict its timeline, run the same program for
real, and compare the two.

Every command works without a file: then it takes a small GPT on two pipeline ranks.

Examples:
    twinline predict --set parallel.schedule=gpipe --gantt timeline.png
    twinline predict --set cluster.preset=dgx-h100 --set parallel.data=8
    twinline compare FILE.toml
    twinline COMMAND --help
"""

app = command_line(
    "twinline",
    ABOUT,
    (
        *(predict, run, compare, calibrate, validate),
        *(program, strategies, clusters, schedules),
    ),
)

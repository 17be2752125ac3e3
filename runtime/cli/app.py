"""All commands as one command line."""

from __future__ import annotations

from simulator.cli.application import command_line

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
        "simulator.cli.predict",
        "runtime.cli.run",
        "runtime.cli.compare",
        "runtime.cli.learn",
        "runtime.cli.calibrate",
        "runtime.cli.validate",
        "simulator.cli.program",
        "simulator.cli.strategies",
        "simulator.cli.clusters",
        "simulator.cli.schedules",
    ),
)

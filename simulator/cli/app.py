"""The commands that need no torch, as one command line."""

from __future__ import annotations

from simulator.cli.application import command_line

ABOUT = "Predict parallel-training timelines (the part of twinline that needs no torch)."

COMMANDS = ("predict", "program", "strategies", "clusters", "schedules", "compare")

app = command_line("simulator", ABOUT, [f"simulator.cli.{command}" for command in COMMANDS])

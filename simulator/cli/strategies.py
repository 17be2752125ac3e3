"""The command ``strategies``."""

from __future__ import annotations

from rich.table import Column, Table

from simulator.cli.application import user_errors
from simulator.cli.outputs import deliver
from simulator.cli.terminal import stdout_console
from simulator.cluster.catalogue import preset_names
from simulator.strategies import registry


@user_errors
def strategies() -> None:
    """List what a plan can be made of; all of it is simulated and executed."""
    table = Table("strategy", Column("how to ask for it", overflow="fold"), "what it is")
    for entry in registry.strategies():
        table.add_row(entry.name, entry.setting, entry.summary)

    def show() -> None:
        console = stdout_console()
        console.print(table)
        console.print("All of these are simulated and executed.")
        console.print(f"clusters: {', '.join(preset_names())} (`twinline clusters`), a cluster ")
        console.print("file, or a calibrated profile")

    deliver(show)

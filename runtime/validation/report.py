"""The text that ``twinline validate`` prints."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runtime.validation.kept import Row
from runtime.validation.validation import Validation
from simulator.units import percent, seconds

LABELS = {
    "median_abs_error": "median |error|",
    "p90_abs_error": "90th percentile of |error|",
    "mean_start_error": "mean start error",
    "worst_memory_error": "largest peak memory error",
}
"""The figures that targets are about, in words."""


WIDE = 130  # columns
LEGEND = """\
error: (predicted − measured) ÷ measured iteration time.
noise: half the p10–p90 spread of the measured steps; an error below it is none.
starts: mean |Δ| of all instructions ÷ iteration time.
memory: error of the peak, of the rank where it is worst.
largest cause: what adds most on the way from predicted to measured, and in
   brackets how much its instructions changed."""


def line_of(row: Row) -> str:
    """Describe one case, finished or failed, in one line."""
    name = f"{row['strategy']}, {row['ranks']} ranks, {row['size']}"
    if row["failure"] is not None:
        return f"{name}: failed: {row['failure']}"
    return (
        f"{name}: predicted {seconds(row['predicted_s'])}, measured {seconds(row['measured_s'])}, "
        f"error {percent(row['error'], signed=True)}, noise floor {percent(row['noise_floor'])}"
    )


def print_validation(console: Console, found: Validation) -> None:
    """Print a row per case, the figures of every group, and the targets."""
    _print_cases(console, found.rows)
    _print_groups(console, found)
    _print_targets(console, found)
    rows = [row for row in found.done if row["pacing"] and row["pacing"]["overran"]]
    for row in rows:
        pacing = row["pacing"]
        console.print(
            f"{row['strategy']}, {row['ranks']} ranks, paced: {pacing['overran']} of "
            f"{pacing['executions']} instructions overran their modelled time, by up to "
            f"{seconds(pacing['longest_overrun_s'])}"
        )
    for row in found.failed:
        console.print(f"[red]failed:[/red] {escape(line_of(row))}")


def _print_cases(console: Console, rows: list[Row]) -> None:
    """Print the cases; their causes stand beside the figures if the console is wide enough."""
    wide = console.width >= WIDE
    right = ("ranks", "predicted", "measured", "error", "noise", "starts", "memory")
    narrow: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}
    table = Table("case", title="predicted against measured", **narrow)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    causes = Table("case", "ranks", **narrow)
    (table if wide else causes).add_column("largest cause")
    for row in rows:
        labels = [escape(f"{row['strategy']}, {row['size']}"), str(row["ranks"])]
        if row["failure"] is not None:
            table.add_row(*labels, "failed")
            continue
        figures = (
            seconds(row["predicted_s"]),
            seconds(row["measured_s"]),
            percent(row["error"], signed=True),
            percent(row["noise_floor"]),
            percent(row["instruction_start_error"]),
            percent(row["peak_memory_error"], signed=True),
        )
        table.add_row(*labels, *figures, *([escape(row["cause"])] if wide else []))
        causes.add_row(*labels, escape(row["cause"]))
    console.print(table)
    if not wide:
        console.print(causes)
    console.print(LEGEND)


def _print_groups(console: Console, found: Validation) -> None:
    names = ("cases", "median |error|", "p90 |error|", "below noise", "starts", "memory")
    table = Table("", title="summary", box=SIMPLE_HEAD)
    for column in names:
        table.add_column(column, justify="right")
    for name, group in [*found.groups().items(), ("all", found.summary())]:
        table.add_row(
            name,
            str(group["cases"]),
            percent(group["median_abs_error"]),
            percent(group["p90_abs_error"]),
            "–" if group["below_noise_floor"] is None else str(group["below_noise_floor"]),
            percent(group["mean_start_error"]),
            percent(group["worst_memory_error"]),
        )
    console.print(table)


def _print_targets(console: Console, found: Validation) -> None:
    for target in found.targets():
        if target["met"] is None:
            continue
        value, limit = target["value"], target["limit"]
        verdict = "[green]met[/green]"
        if not target["met"]:
            verdict = f"[yellow]not met[/yellow], {100 * (value - limit):.1f} points above it"
            if "within_or_noise" in target:
                within, of = target["within_or_noise"], found.summary(target["group"])["cases"]
                verdict += f"; {within} of {of} cases are within it or their noise floor"
        where = "all cases" if target["group"] == "all" else target["group"]
        found_value = f"{LABELS[target['figure']]} {percent(value)}"
        console.print(f"{where}: {found_value}; Twinline's target ≤ {limit:.0%}: {verdict}")

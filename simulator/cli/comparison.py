"""The tables of a comparison: predicted beside measured, the errors, and the reasons."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from simulator.analysis.comparison import Comparison
from simulator.analysis.results import Result
from simulator.cli.console import print_filled
from simulator.cli.results import print_parts
from simulator.cli.settled import print_staleness, whole_staleness
from simulator.units import nbytes, percent, seconds

LEGEND = """\
error: predicted − measured, relative to measured. Rows below the line compare one
   operation: short ones are noisy, and their errors may cancel in the total."""
NOISE_LEGEND = """That is half the p10–p90 spread of the measured
   iterations; a smaller error means nothing."""
CAUSES_LEGEND = """\
compute, communication: instructions that took longer or shorter. host gaps: time
   between being able to start and starting. late in turn: waiting for whichever
   rank is slowest in each iteration. remainder: what nothing of this explains."""


def _relative(mine: float, theirs: float) -> float:
    """Return the distance of two numbers as a share of the second; 0 where that is 0."""
    return abs(mine - theirs) / theirs if theirs > 0 else 0.0


def print_comparison(
    console: Console, predicted: Result, measured: Result, comparison: Comparison
) -> None:
    """Print predicted beside measured, the errors with the noise floor, and the reasons."""
    table = Table("", "predicted", "measured", "error", title="predicted against measured")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "iteration time",
        seconds(predicted.iteration_time_s),
        seconds(measured.iteration_time_s),
        percent(comparison.iteration_time_error, signed=True),
    )
    table.add_row(
        "bubble fraction",
        f"{predicted.bubble_fraction:.3f}",
        f"{measured.bubble_fraction:.3f}",
        f"{predicted.bubble_fraction - measured.bubble_fraction:+.3f}",
    )
    mine, theirs = ([rank.peak_memory_bytes for rank in r.ranks] for r in (predicted, measured))
    if measured.statistics and measured.statistics.allocator_peak_bytes:
        theirs = measured.statistics.allocator_peak_bytes
    worst = max(range(len(theirs)), key=lambda rank: _relative(mine[rank], theirs[rank]))
    table.add_row(
        f"peak memory (rank {worst})",
        nbytes(mine[worst]),
        nbytes(theirs[worst]),
        percent(comparison.peak_memory_error, signed=True),
    )
    if predicted.moe and measured.moe:
        shares = [result.moe.dropped_share for result in (predicted, measured) if result.moe]
        table.add_row(
            "dropped share", *(f"{s:.3f}" for s in shares), f"{shares[0] - shares[1]:+.3f}"
        )
    if predicted.metrics.rates and measured.metrics.rates:
        rates = [result.metrics.rates for result in (predicted, measured)]
        pace = [rate.updates_per_s for rate in rates if rate]
        table.add_row(
            "updates/s, settled",
            *(f"{rate:,.1f}" for rate in pace),
            percent(pace[0] / pace[1] - 1, signed=True),
        )
    behind = [whole_staleness(result.staleness) for result in (predicted, measured)]
    if behind[0] and behind[1]:
        means = [row.mean_versions_behind for row in behind if row]
        table.add_row(
            "staleness, mean", *(f"{mean:.2f}" for mean in means), f"{means[0] - means[1]:+.2f}"
        )
        most = [row.max_versions_behind for row in behind if row]
        table.add_row("staleness, largest", *map(str, most), f"{most[0] - most[1]:+d}")
    table.add_row(
        "instruction starts, mean |Δ|", "", "", percent(comparison.instruction_start_error)
    )
    table.add_section()
    for name, count, took, takes in comparison.rows:
        error = percent((took - takes) / takes, signed=True) if takes > 0 else "–"
        table.add_row(f"{name} (median of {count})", seconds(took), seconds(takes), error)
    console.print(table)
    if behind[0] and behind[1]:
        print_staleness(
            console, ("predicted", predicted.staleness), ("measured", measured.staleness)
        )
    console.print(LEGEND, soft_wrap=True)
    floor = comparison.noise_floor
    if floor is not None:
        console.print(f"noise floor: {percent(floor)}. {NOISE_LEGEND}", soft_wrap=True)
    if comparison.attribution is None:
        return
    parts = [
        f"{name.removesuffix('_s').replace('_', ' ')} {value * 1e3:+.2f} ms"
        for name, value in comparison.attribution.items()
    ]
    console.print("from predicted to measured:")
    print_parts(console, parts, indent="  ")
    if floor is not None and abs(comparison.iteration_time_error) <= floor:
        console.print("the difference is below the noise floor, so no cause is named")
    else:
        print_filled(console, f"largest cause: {comparison.cause}")
    console.print(CAUSES_LEGEND, soft_wrap=True)

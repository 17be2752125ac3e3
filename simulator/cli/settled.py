"""Several training steps come to rates, a staleness of each worker, and bytes by link."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from simulator.analysis.link_bytes import LinkBytes
from simulator.analysis.rates import Rates
from simulator.program.staleness import StageStaleness
from simulator.units import counted, nbytes, seconds

MOST_ROWS = 16
"""The most rows of a table."""
MOST_LINKS = 8
MOST_BARS = 16
BARS = "▁▂▃▄▅▆▇█"


def rates_line(rates: Rates) -> str:
    """Return the rates in words."""
    return (
        f"settled: {_many(rates.updates_per_s)} updates/s, one in {seconds(rates.update_s)}, "
        f"{_many(rates.samples_per_s)} samples/s"
    )


def _many(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def of_workers(stages: Sequence[StageStaleness]) -> list[StageStaleness]:
    """Return the rows that are of workers that push."""
    return [row for row in stages if row.worker is not None]


def staleness_line(stages: Sequence[StageStaleness]) -> str:
    """Return the staleness of the gradients that workers push, in words; none: nothing."""
    whole = whole_staleness(stages)
    if whole is None:
        return ""
    dropped = whole.versions_behind.count(None)
    late = f"; {counted(dropped, 'gradient')} came too late" if dropped else ""
    return (
        f"staleness: gradients are {whole.mean_versions_behind:.2f} updates behind on average, "
        f"{whole.max_versions_behind} at most{late}"
    )


def whole_staleness(stages: Sequence[StageStaleness]) -> StageStaleness | None:
    """Return the staleness of all workers together; None: there are none."""
    workers = of_workers(stages)
    if not workers:
        return None
    behind = [one for row in workers for one in row.versions_behind]
    return StageStaleness.of(workers[0].stage, behind)


def print_staleness(console: Console, *columns: tuple[str, Sequence[StageStaleness]]) -> None:
    """Print the staleness of each worker, as one or several sources have it.

    Args:
        console: where.
        columns: the name of a source, empty for the only one, and what it has.
    """
    named = [
        (name, {(row.worker, row.server): row for row in of_workers(r)}) for name, r in columns
    ]
    keys = list(named[0][1])
    if not keys:
        return
    several = len({server for _, server in keys}) > 1
    most = max(row.max_versions_behind for _, rows in named for row in rows.values())
    table = Table("worker", *(["server"] if several else []))
    for name, _ in named:
        ahead = f"{name} " if name else ""
        table.add_column(f"{ahead}mean", justify="right")
        table.add_column("largest", justify="right")
        table.add_column(f"0 … {most}" if most else "0")
    for worker, server in keys[:MOST_ROWS]:
        cells: list[str] = []
        for _, rows in named:
            row = rows[worker, server]
            counted_any = any(behind is not None for behind in row.versions_behind)
            figures = f"{row.mean_versions_behind:.2f}", str(row.max_versions_behind)
            cells += figures if counted_any else ("–", "–")  # all of them came too late
            cells.append(bars(row.histogram, most))
        table.add_row(f"rank {worker}", *([f"rank {server}"] if several else []), *cells)
    console.print(table)
    if len(keys) > MOST_ROWS:
        console.print(f"… and {counted(len(keys) - MOST_ROWS, 'more row')} (all in --json)")
    behind = f"0 to {most}" if most else "0"
    console.print(f"bars: how many gradients are {behind} updates behind", soft_wrap=True)


def bars(histogram: Sequence[int], most: int) -> str:
    """Return a histogram from 0 to `most` as a line of bars, neighbours together where many."""
    width = -(-(most + 1) // MOST_BARS)
    counts = [sum(histogram[at : at + width]) for at in range(0, most + 1, width)]
    highest = max([*counts, 1])
    return "".join(
        BARS[-(-count * len(BARS) // highest) - 1] if count else " " for count in counts
    ).rstrip()


def print_links(console: Console, links: Sequence[LinkBytes], horizon: int) -> None:
    """Print the bytes over the busiest links, in a training step."""
    table = Table("link", "out", "in", title="bytes of a step, by link", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in links[:MOST_LINKS]:
        table.add_row(row.link, nbytes(row.out_bytes / horizon), nbytes(row.in_bytes / horizon))
    console.print(table)
    if len(links) > MOST_LINKS:
        console.print(f"… and {counted(len(links) - MOST_LINKS, 'more link')} (all in --json)")

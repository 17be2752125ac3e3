"""The table of one timeline: its figures, and a row for ranks that are alike."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulator.analysis.results import RankMetrics, Result
from simulator.analysis.step_times import StepTimes
from simulator.cli.settled import print_staleness, rates_line, staleness_line
from simulator.experiment.roles import TRAINER
from simulator.timeline.statistics import PacingReport, Statistics
from simulator.units import count, counted, listed, nbytes, percent, seconds

MOST_ROWS = 16
"""The most rows of a table of ranks."""

COLUMNS = ("compute", "exposed comm", "idle", "peak memory", "in flight")

LEGEND = """\
bubble fraction: share of the ranks' time in which they do not compute.
exposed comm: communication that no computation of the rank hides.
in flight: the most microbatches whose activations a rank holds at once.
peak memory: tensors only; the device's context, buffers of the communication
   library, workspace of kernels and gaps of the allocator come on top."""
MFU_LEGEND = """\
MFU: FLOPs of the model ÷ (time × peak FLOP/s of the devices in use); HFU counts
   what is computed again, too."""


def print_result(console: Console, title: str, result: Result) -> None:
    """Print the figures of one timeline, then a row for each kind of rank, and a legend."""
    metrics, statistics, program = result.metrics, result.statistics, result.metrics.program
    size = f"{counted(program.ranks, 'rank')}, {counted(program.instructions, 'instruction')}"
    known = [f"{count(metrics.parameters)} parameters"] if metrics.parameters else []
    title = f"[bold]{escape(title)}[/bold]"
    print_parts(console, [title, *known, f"program {program.hash}: {size}"])
    time = f"iteration {seconds(metrics.iteration_time_s)}"
    if statistics:
        low, high = statistics.iteration_time_p10_s, statistics.iteration_time_p90_s
        time += f" (p10 {seconds(low)}, p90 {seconds(high)})"
    figures = [time, f"bubble fraction {metrics.bubble_fraction:.3f}"]
    if metrics.tokens_per_s is not None:
        figures.append(f"{metrics.tokens_per_s:,.0f} {metrics.token}s/s")
    if metrics.mfu is not None and metrics.hfu is not None:
        figures.append(f"MFU {percent(metrics.mfu)}")
        if metrics.hfu != metrics.mfu:
            figures.append(f"HFU {percent(metrics.hfu)}")
    print_parts(console, figures)
    if metrics.steps and metrics.steps.horizon > 1:
        print_parts(console, _of_steps(metrics.steps))
    if metrics.rates:
        console.print(rates_line(metrics.rates), soft_wrap=True)
    _print_ranks(console, metrics.ranks)
    if result.moe:
        loads = result.moe.load_of_blocks
        low, high = min(map(min, loads)), max(map(max, loads))
        console.print(
            f"experts: dropped share {result.moe.dropped_share:.3f}, load of an expert "
            f"of a block {low:.3f} to {high:.3f}"
        )
    if line := shares_line(metrics.ranks):
        console.print(line, soft_wrap=True)
    if line := staleness_line(result.staleness):
        console.print(line, soft_wrap=True)
        print_staleness(console, ("", result.staleness))
    if statistics:
        _print_statistics(console, statistics)
    console.print(LEGEND if metrics.mfu is None else f"{LEGEND}\n{MFU_LEGEND}", soft_wrap=True)


def shares_line(ranks: Sequence[RankMetrics]) -> str:
    """Return who got how many of the microbatches that a server hands out, in words."""
    workers = [row for row in ranks if row.microbatches is not None and row.role == TRAINER]
    if not workers:
        return ""
    rows = [f"rank {row.rank} {row.microbatches}" for row in workers[:MOST_ROWS]]
    more = f", … {len(workers)} in all" if len(workers) > MOST_ROWS else ""
    whole = sum(row.microbatches or 0 for row in workers)
    return f"of {counted(whole, 'microbatch')} got: {', '.join(rows)}{more}"


def _of_steps(steps: StepTimes) -> list[str]:
    """Return the times of the training steps of an iteration, in words."""
    parts = [f"{steps.horizon} steps an iteration, each {seconds(steps.mean_s)} on average"]
    if steps.steady_s is not None:
        parts.append(f"steady state {seconds(steps.steady_s)}")
    if steps.drained_s is not None:
        parts.append(f"drained after each step {seconds(steps.drained_s)}")
    return parts


def print_memory_fit(console: Console, result: Result) -> None:
    """Print that the plan fits into memory; that it does not is among the notes."""
    if result.memory_fit and result.memory_fit.fits:
        console.print(str(result.memory_fit), soft_wrap=True)


def print_parts(console: Console, parts: Sequence[str], indent: str = "") -> None:
    """Print `parts` with gaps between them; a line ends only between two of them."""
    line = ""
    for part in parts:
        longer = f"{line}   {part}" if line else indent + part
        if line and len(console.render_str(longer)) > console.width:
            console.print(line, soft_wrap=True)
            longer = indent + part
        line = longer
    console.print(line, soft_wrap=True)


def _print_ranks(console: Console, ranks: Sequence[RankMetrics]) -> None:
    """Print a table with one row for all ranks whose figures read the same."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for row in ranks:
        figures = (
            seconds(row.compute_s),
            seconds(row.exposed_comm_s),
            seconds(row.idle_s),
            nbytes(row.peak_memory_bytes),
            str(row.peak_inflight_microbatches),
        )
        rows.setdefault((row.role, *figures), []).append(row.rank)
    grouped = len(rows) < len(ranks)
    roles = len({row.role for row in ranks}) > 1
    table = Table("ranks" if grouped else "rank", *(["role"] if roles else []), *COLUMNS)
    for column in table.columns:
        column.justify = "right"
    shown = list(rows.items())[:MOST_ROWS]
    for (role, *cells), members in shown:
        table.add_row(listed(members), *([role] if roles else []), *cells)
    console.print(table)
    if len(shown) < len(rows):
        left = len(ranks) - sum(len(members) for _, members in shown)
        console.print(f"… and {counted(left, 'more rank')} (all in --json)")


def _print_statistics(console: Console, statistics: Statistics) -> None:
    """Print what was counted over all iterations of a run."""
    if statistics.pacing:
        _print_pacing(console, statistics.pacing)
    if statistics.allocator_peak_bytes:
        held = ", ".join(map(nbytes, statistics.allocator_peak_bytes[:16]))
        reserved = ", ".join(map(nbytes, (statistics.allocator_reserved_bytes or [])[:16]))
        of = f", of {reserved} that they had of the device" if reserved else ""
        console.print(f"allocators held at most {held}{of} (ranks in order)")
    if statistics.loss_scale:
        scale = statistics.loss_scale
        console.print(f"loss scale {scale.value:g}, {scale.skipped_steps} steps skipped")
    if statistics.losses:
        losses = statistics.losses
        console.print(
            f"loss {losses[0]:.4f} → {losses[-1]:.4f} over {len(losses)} training steps, "
            f"parameters norm {statistics.parameters_norm:.6f}"
        )
    if statistics.consensus_distance:
        *steps, end = statistics.consensus_distance
        mean, most = sum(steps) / len(steps), max(steps)
        console.print(
            f"replicas were {mean:.4g} apart on average, {most:.4g} at most (step "
            f"{steps.index(most)}), {end:.4g} at the end of the iteration",
            soft_wrap=True,
        )


def _print_pacing(console: Console, pacing: PacingReport) -> None:
    """Print whether real work was hidden behind modelled times."""
    if not pacing.overran:
        console.print(
            f"paced: real work of every instruction was within its modelled time (at most "
            f"{pacing.largest_ratio:.0%} of it, {pacing.where})"
        )
        return
    many = f"{pacing.overran} of {pacing.executions:,} instructions"
    line = f"paced: {many} overran their modelled time, by up to "
    console.print(f"{line}{seconds(pacing.longest_overrun_s)}")
    if pacing.largest_ratio > 1 and pacing.needed_pace:
        console.print(
            f"pace too fast: real work of {pacing.where} takes {pacing.largest_ratio:.3g} "
            f"times its modelled time, raise run.pace to {pacing.needed_pace:g}"
        )

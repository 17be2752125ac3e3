"""Tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulator.analysis.comparison import Comparison
from simulator.analysis.results import Result
from simulator.planner.schedules import PipelineSetting, ScheduleFigures
from simulator.timeline.statistics import PacingReport, Statistics
from simulator.units import nbytes, percent, seconds

WIDEST_LIST = 11  # letters
SCHEDULES_LEGEND = """
v: stages on a rank. Each takes a v-th of F, I and W, and its activations count a
   v-th; its messages take as long as any.
time, bubble: of one step alone, filled and drained.
of many: time of a step among many, if each rank begins the next one at once, while
   others drain, and checks and clips only afterwards; async: without any drain.
in flight: the most microbatches whose activations a rank holds; worst rank, each.
messages: sent per step, all ranks.
behind: updates between the weights of a gradient and those that it changes.
async: needs no drain after a step."""


def print_result(console: Console, title: str, result: Result) -> None:
    """One timeline: its figures, then a row per rank."""
    metrics, statistics, program = result.metrics, result.statistics, result.metrics.program
    console.print(
        f"[bold]{title}[/bold]  program {program.hash}: {program.ranks} ranks, "
        f"{program.instructions:,} instructions"
    )
    line = f"iteration {seconds(metrics.iteration_time_s)}"
    if statistics:
        low, high = statistics.iteration_time_p10_s, statistics.iteration_time_p90_s
        line += f" (p10 {seconds(low)}, p90 {seconds(high)})"
    line += f"   bubble fraction {metrics.bubble_fraction:.3f}"
    if metrics.tokens_per_s is not None:
        line += f"   {metrics.tokens_per_s:,.0f} {metrics.token}s/s"
    if metrics.mfu is not None and metrics.hfu is not None:
        line += f"   MFU {percent(metrics.mfu)}"
        if metrics.hfu != metrics.mfu:
            line += f"   HFU {percent(metrics.hfu)}"
    console.print(line)
    table = Table("rank", "compute", "exposed comm", "idle", "peak memory", "in flight")
    for column in table.columns:
        column.justify = "right"
    shown = metrics.ranks[:16]
    for row in shown:
        table.add_row(
            str(row.rank),
            seconds(row.compute_s),
            seconds(row.exposed_comm_s),
            seconds(row.idle_s),
            nbytes(row.peak_memory_bytes),
            str(row.peak_inflight_microbatches),
        )
    console.print(table)
    if len(shown) < len(metrics.ranks):
        console.print(f"… and {len(metrics.ranks) - len(shown)} more ranks (all in --json)")
    if result.moe:
        loads = result.moe.load_of_blocks
        low, high = min(map(min, loads)), max(map(max, loads))
        console.print(
            f"experts: dropped share {result.moe.dropped_share:.3f}, load of an expert "
            f"of a block {low:.3f} to {high:.3f}"
        )
    if statistics:
        _print_statistics(console, statistics)


def _print_statistics(console: Console, statistics: Statistics) -> None:
    """What was counted over all iterations of a run."""
    if statistics.pacing:
        _print_pacing(console, statistics.pacing)
    if statistics.allocator_peak_bytes:
        held = ", ".join(map(nbytes, statistics.allocator_peak_bytes[:16]))
        console.print(f"allocators held at most {held} (ranks in order)")
    if statistics.loss_scale:
        scale = statistics.loss_scale
        console.print(f"loss scale {scale.value:g}, {scale.skipped_steps} steps skipped")
    if statistics.losses:
        losses = statistics.losses
        console.print(
            f"loss {losses[0]:.4f} → {losses[-1]:.4f} over {len(losses)} iterations, "
            f"parameters norm {statistics.parameters_norm:.6f}"
        )


def _print_pacing(console: Console, pacing: PacingReport) -> None:
    """Whether real work was hidden behind modelled times."""
    if not pacing.overran:
        console.print(
            f"paced: real work of every instruction was within its modelled time (at most "
            f"{pacing.largest_ratio:.0%} of it, {pacing.where})"
        )
        return
    many = f"{pacing.overran} of {pacing.executions} instructions"
    line = f"paced: {many} overran their modelled time, by up to "
    console.print(f"{line}{seconds(pacing.longest_overrun_s)}")
    if pacing.largest_ratio > 1 and pacing.needed_pace:
        console.print(
            f"pace too fast: real work of {pacing.where} takes {pacing.largest_ratio:.3g} "
            f"times its modelled time, raise run.pace to {pacing.needed_pace:g}"
        )


def _relative(mine: float, theirs: float) -> float:
    return abs(mine - theirs) / theirs if theirs > 0 else 0.0


def print_comparison(
    console: Console, predicted: Result, measured: Result, comparison: Comparison
) -> None:
    """Predicted beside measured, the errors with the noise floor, and the reasons."""
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
    table.add_row(
        "instruction starts, mean |Δ|", "", "", percent(comparison.instruction_start_error)
    )
    table.add_section()
    for name, count, took, takes in comparison.rows:
        error = percent((took - takes) / takes, signed=True) if takes > 0 else "–"
        table.add_row(f"{name} (median of {count})", seconds(took), seconds(takes), error)
    console.print(table)
    if comparison.noise_floor is not None:
        console.print(
            f"noise floor {percent(comparison.noise_floor)}: half the p10–p90 spread of the "
            "measured iterations; an error below it is not an error"
        )
    if comparison.attribution is not None:
        parts = ", ".join(
            f"{name.removesuffix('_s').replace('_', ' ')} {value * 1e3:+.2f} ms"
            for name, value in comparison.attribution.items()
        )
        console.print(f"from predicted to measured: {parts}")
        console.print(f"largest cause: {comparison.cause}")


def describe_case(case: PipelineSetting) -> str:
    """4 ranks, 8 microbatches, F 1 s, I 1 s, W 1 s, messages 0 s."""
    costs = [f"{cost:g}" if case.in_forwards else seconds(cost) for cost in case[2:6]]
    names = ("F", "I", "W", "messages")
    parts = [f"{name} {cost}" for name, cost in zip(names, costs, strict=True)]
    many = "es" if case.microbatches > 1 else ""
    return (
        f"{case.stages} pipeline rank{'s' if case.stages > 1 else ''}, {case.microbatches} "
        f"microbatch{many}, {', '.join(parts)}"
    )


def print_schedules(console: Console, case: PipelineSetting, rows: list[ScheduleFigures]) -> None:
    """The table, and how to read it."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    widest = max(len(row.schedule) for row in rows)
    table.add_column("schedule", min_width=widest)
    for heading in ("v", "time", "of\nmany", "bub-\nble", "in\nflight"):
        table.add_column(heading, justify="right")
    table.add_column("per rank")
    for heading in ("mes-\nsages", "be-\nhind"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    done, refused = ([row for row in rows if row.refused is flag] for flag in (False, True))
    for row in done:
        table.add_row(
            row.schedule,
            str(row.virtual_stages),
            *(
                f"{time:.4g}" if case.in_forwards else seconds(time)
                for time in (row.iteration_time, row.steady_step_time)
            ),
            f"{row.bubble_fraction:.3f}",
            _number(max(row.in_flight)),
            _listed(row.in_flight),
            str(row.messages),
            str(row.versions_behind),
            row.note,
        )
    work = f"{case.work:g} F; times in F" if case.in_forwards else seconds(case.work)
    console.print(f"{describe_case(case)}\nevery rank computes for {work}\n", soft_wrap=True)
    console.print(table)
    for row in refused:  # their reasons need the room of the other columns
        line = f"{row.schedule:{widest}}  {row.virtual_stages}  refused: {row.note}"
        console.print(line, soft_wrap=True)
    console.print(SCHEDULES_LEGEND, soft_wrap=True)


def _number(value: float) -> str:
    return f"{round(value, 2):g}"


def _listed(peaks: tuple[float, ...]) -> str:
    """4 3 2 1, or all, or 15 … 1 where there is no room for more."""
    texts = [_number(peak) for peak in peaks]
    if len(texts) > 1 and len(set(texts)) == 1:
        return "all"
    if len(" ".join(texts)) <= WIDEST_LIST:
        return " ".join(texts)
    return f"{texts[0]} … {texts[-1]}"

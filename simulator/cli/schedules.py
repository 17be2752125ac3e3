"""The command ``schedules``, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulator.cli.console import stdout_console
from simulator.cli.options import AsJson, Gantt
from simulator.cli.outputs import Output, check_outputs, deliver
from simulator.cli.user_errors import user_errors
from simulator.planner.schedules import (
    PipelineSetting,
    ScheduleFigures,
    axis_end,
    compare_schedules,
    parse_costs,
    to_json,
)
from simulator.units import counted, seconds

WIDEST_LIST = 11
"""The most letters of a list of peaks."""

SCHEDULES_LEGEND = """
v: stages on a rank. Each takes a v-th of F, I and W, and its activations count a
   v-th; its messages take as long as any.
time, bubble: of one step alone, filled and drained.
of many: time of a step among many, if each rank begins the next one at once,
   while others drain, and checks and clips only afterwards; async: without any
   drain.
in flight: the most microbatches whose activations a rank holds; worst rank,
   each.
messages: sent per step, all ranks.
behind: updates between the weights of a gradient and those that it changes.
async: needs no drain after a step."""


@user_errors
def schedules(
    stages: Annotated[int, typer.Option(metavar="P", help="Number of pipeline ranks.")] = 4,
    microbatches: Annotated[
        int, typer.Option(metavar="M", help="Microbatches of a training step.")
    ] = 8,
    costs: Annotated[
        str,
        typer.Option(metavar="F,I,W,P2P", help="Seconds of a stage's passes, and of a message."),
    ] = "1,1,1,0",
    virtual: Annotated[
        int, typer.Option(metavar="V", help="Stages on a rank, for schedules that take several.")
    ] = 2,
    memory_limit: Annotated[
        float | None,
        typer.Option(metavar="X", help="The most microbatches in flight on a rank, for zb-auto."),
    ] = None,
    as_json: AsJson = False,
    gantt: Gantt = None,
) -> None:
    """Compare all pipeline schedules on equal stages: time, bubble, memory, messages, staleness.

    The fastest comes first. Every schedule has the same work: of V stages on a rank, each takes
    a V-th. Use it to choose parallel.schedule before you predict a real plan.

    Examples:
        twinline schedules --stages 8 --microbatches 32
        twinline schedules --costs 0.01,0.01,0.01,0.002 --gantt schedules.png
    """
    check_outputs(gantt)
    case = PipelineSetting(stages, microbatches, *parse_costs(costs), virtual, memory_limit)
    rows = compare_schedules(case)

    def show() -> None:
        if as_json:
            print(json.dumps(to_json(case, rows)))
        else:
            print_schedules(stdout_console(), case, rows)

    def draw(path: Path) -> None:
        from simulator.charts.schedules import schedules_figure

        timelines = {row.name: row.timeline for row in rows if row.timeline is not None}
        unit = "F" if case.in_forwards else None
        figure = schedules_figure(
            timelines, title=describe_case(case), unit=unit, until=axis_end(rows)
        )
        figure.save(path)

    outputs: list[Output] = [(gantt, draw)] if gantt else []
    deliver(show, outputs, quiet=as_json)


def describe_case(case: PipelineSetting) -> str:
    """Return a case in words: 4 pipeline ranks, 8 microbatches, F 1, I 1, W 1, messages 0."""
    costs = [f"{cost:g}" if case.in_forwards else seconds(cost) for cost in case[2:6]]
    names = ("F", "I", "W", "messages")
    parts = [f"{name} {cost}" for name, cost in zip(names, costs, strict=True)]
    ranks, batches = counted(case.stages, "pipeline rank"), counted(case.microbatches, "microbatch")
    return f"{ranks}, {batches}, {', '.join(parts)}"


def print_schedules(console: Console, case: PipelineSetting, rows: list[ScheduleFigures]) -> None:
    """Print the table of all schedules, and how to read it."""
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
    """Return a number with at most two decimals."""
    return f"{round(value, 2):g}"


def _listed(peaks: tuple[float, ...]) -> str:
    """Return peaks as 4 3 2 1, as all, or as 15 … 1 where there is no room for more."""
    texts = [_number(peak) for peak in peaks]
    if len(texts) > 1 and len(set(texts)) == 1:
        return "all"
    if len(" ".join(texts)) <= WIDEST_LIST:
        return " ".join(texts)
    return f"{texts[0]} … {texts[-1]}"

"""Pipeline schedules: in which order a pipeline rank runs its passes.

One file a schedule; each exports

* ``order(plan, rank)``: the passes of pipeline rank `rank`, in order;
* ``placement(plan)``: which pipeline rank owns each stage;
* ``refusal(plan)``: why it cannot schedule `plan` (what is allowed), or None;
* ``updates(plan)``, asynchronous schedules only: when weights change within a step;
* `SUMMARY`: the line that ``twinline strategies`` prints.
"""

from __future__ import annotations

from typing import Protocol

from simulator.strategies.schedules import (
    dualpipe_v,
    eager_1f1b,
    gpipe,
    interleaved_1f1b,
    looped_bfs,
    naive,
    one_f_one_b,
    pipedream,
    pipedream_2bw,
    zb_auto,
    zb_h1,
    zb_h2,
    zb_v,
)
from simulator.strategies.schedules.passes import Pass, Plan, Updates


class Schedule(Protocol):
    """The interface of a schedule file (and of `pipelining_csv.CsvSchedule`)."""

    SUMMARY: str

    def order(self, plan: Plan, rank: int) -> list[Pass]: ...

    def placement(self, plan: Plan) -> list[int]: ...

    def refusal(self, plan: Plan) -> str | None: ...


SCHEDULES: dict[str, Schedule] = {
    "naive": naive,
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "eager-1f1b": eager_1f1b,
    "interleaved-1f1b": interleaved_1f1b,
    "looped-bfs": looped_bfs,
    "zb-h1": zb_h1,
    "zb-h2": zb_h2,
    "zb-v": zb_v,
    "dualpipe-v": dualpipe_v,
    "zb-auto": zb_auto,
    "pipedream": pipedream,
    "pipedream-2bw": pipedream_2bw,
}


def schedule_named(name: str) -> Schedule:
    """The schedule that ``parallel.schedule`` names; ``csv:PATH`` reads one from a file.

    Raises:
        ValueError: there is none of that name, or the file is not a schedule.
    """
    if name.startswith("csv:"):
        from simulator.strategies.schedules.csv_file import CsvSchedule

        path = name.removeprefix("csv:")
        if not path:
            raise ValueError("the path is missing; allowed: csv:PATH")
        return CsvSchedule(path)
    if name not in SCHEDULES:
        raise ValueError(f"allowed: {', '.join(SCHEDULES)}, csv:PATH")
    return SCHEDULES[name]


__all__ = ["SCHEDULES", "Pass", "Plan", "Schedule", "Updates", "schedule_named"]

"""The pipeline schedules that there are: in which order a pipeline rank runs its passes.

A schedule is a file of this folder, a CSV file, or code of the user's own; see
`simulator.strategies.schedules.schedule.Schedule` for what it has to define.
"""

from __future__ import annotations

from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import suggestion
from simulator.strategies.plugins import is_user_code, load_user_code
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
from simulator.strategies.schedules.csv_file import CsvSchedule
from simulator.strategies.schedules.passes import Pass, Plan, Updates
from simulator.strategies.schedules.schedule import Schedule
from simulator.strategies.schedules.user_schedule import UserSchedule

KEY = "parallel.schedule"
CSV = "csv:"
GROUP = "twinline.schedules"
"""The group of entry points in which installed packages declare schedules."""

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
    """Return the schedule that ``parallel.schedule`` names.

    Raises:
        ExperimentError: there is none of that name, or the file is not a schedule.
    """
    if name in SCHEDULES:
        return SCHEDULES[name]
    if name.startswith(CSV):
        path = name.removeprefix(CSV)
        if not path:
            raise ExperimentError(f"{KEY} = {name!r}: the path is missing; allowed: csv:PATH")
        try:
            return CsvSchedule(path)
        except ValueError as error:
            raise ExperimentError(f"{KEY} = {name!r}: {error}") from None
    if is_user_code(name, GROUP):
        return UserSchedule(load_user_code(KEY, name, GROUP))
    hint = suggestion(name, SCHEDULES)
    raise ExperimentError(
        f"{KEY} = {name!r}: {hint}allowed: {', '.join(SCHEDULES)}, csv:PATH, file:PATH.py or a "
        "dotted name of your own"
    )


__all__ = ["GROUP", "SCHEDULES", "Pass", "Plan", "Schedule", "Updates", "schedule_named"]

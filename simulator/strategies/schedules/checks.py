"""What ``[parallel]`` says of the schedule is refused here, if it is wrong for every plan."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import suggestion
from simulator.strategies.schedules.registry import SCHEDULES, schedule_named


def check_schedule(experiment: Experiment) -> None:
    """Refuse a schedule that there is not, and a limit of memory that it does not read."""
    parallel = experiment.parallel
    try:
        schedule_named(parallel.schedule)
    except ValueError as error:
        hint = suggestion(parallel.schedule, SCHEDULES)
        raise ExperimentError(f"parallel.schedule = {parallel.schedule!r}: {hint}{error}") from None
    if parallel.memory_limit is not None and parallel.schedule != "zb-auto":
        raise ExperimentError(
            f"parallel.memory_limit = {parallel.memory_limit:g}: only for parallel.schedule = "
            f"'zb-auto', not {parallel.schedule!r}"
        )

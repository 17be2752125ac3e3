"""The interface of a schedule: what a module of `simulator.strategies.schedules` exports."""

from __future__ import annotations

from typing import Protocol

from simulator.strategies.schedules.passes import Pass, Plan, Updates


class Schedule(Protocol):
    """An order of the passes of every pipeline rank.

    Attributes:
        SUMMARY: the line that ``twinline strategies`` prints.
    """

    SUMMARY: str

    def order(self, plan: Plan, rank: int) -> list[Pass]:
        """Return the passes of pipeline rank `rank`, in order."""
        ...

    def placement(self, plan: Plan) -> list[int]:
        """Return which pipeline rank owns each stage."""
        ...

    def refusal(self, plan: Plan) -> str | None:
        """Return why the schedule cannot order `plan`, and what is allowed, or None."""
        ...

    def updates(self, plan: Plan) -> Updates:
        """Return when weights change: `once_a_step`, unless the schedule is asynchronous."""
        ...


def is_asynchronous(schedule: Schedule, plan: Plan) -> bool:
    """Tell whether weights change within a training step while microbatches are in flight."""
    return schedule.updates(plan).every < plan.num_microbatches

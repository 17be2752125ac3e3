"""A schedule of the user's own has the interface of ours, and every answer of it is checked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from simulator.strategies.plugins import UserCode
from simulator.strategies.schedules.passes import Pass, Plan, Updates, incomplete, once_a_step
from simulator.strategies.schedules.placements import loop


class UserSchedule:
    """A schedule that a module or a class of the user's own defines.

    It must have ``order(plan, rank)``. What it leaves out of the rest is as most schedules have
    it: stage s on rank s mod p, no plan refused, weights updated once a step.

    Raises:
        ExperimentError: the code fails, or an answer of it is no answer to the question; one
            line names the file.
    """

    def __init__(self, code: UserCode):
        self._code = code
        value = code.value
        self._schedule: Any = code.call(value) if isinstance(value, type) else value
        if not callable(getattr(self._schedule, "order", None)):
            raise code.mistake(f"{code.file} has no order(plan, rank)")
        summary = getattr(self._schedule, "SUMMARY", None) or inspect.getdoc(self._schedule)
        self.SUMMARY = str(summary or f"from {code.file}").partition("\n")[0]

    def order(self, plan: Plan, rank: int) -> list[Pass]:
        """Return the passes of `rank`: those of each of its stages, each microbatch once."""
        passes = self._answer("order", "a list of passes", plan, rank)
        if not all(isinstance(step, Pass) for step in passes):
            wrong = next(step for step in passes if not isinstance(step, Pass))
            raise self._mistake("order", f"has {wrong!r} in it", "forward(stage, microbatch), …")
        stages = [stage for stage, owner in enumerate(self.placement(plan)) if owner == rank]
        wrong = incomplete(passes, stages, plan.num_microbatches)
        if wrong:
            raise self._code.mistake(f"{self._code.file}: order of rank {rank}: {wrong}")
        return passes

    def placement(self, plan: Plan) -> list[int]:
        """Return which rank owns each stage."""
        if not hasattr(self._schedule, "placement"):
            return loop(plan)
        owners = self._answer("placement", "a list of ranks, one for each stage", plan)
        if len(owners) != plan.num_stages or not set(owners) <= set(range(plan.num_ranks)):
            raise self._mistake(
                "placement",
                f"returned {owners}",
                f"{plan.num_stages} numbers from 0 to {plan.num_ranks - 1}, one for each stage",
            )
        return owners

    def refusal(self, plan: Plan) -> str | None:
        """Return what the schedule says against `plan`, or None."""
        if not hasattr(self._schedule, "refusal"):
            return None
        text = self._code.call(self._schedule.refusal, plan)
        if text is not None and not isinstance(text, str):
            raise self._mistake("refusal", f"returned {text!r}", "a text, or None")
        return text

    def updates(self, plan: Plan) -> Updates:
        """Return when weights change."""
        if not hasattr(self._schedule, "updates"):
            return once_a_step(plan)
        updates = self._code.call(self._schedule.updates, plan)
        if not isinstance(updates, Updates) or updates.every < 1:
            raise self._mistake("updates", f"returned {updates!r}", "Updates(every=1 or more)")
        return updates

    def _answer(self, function: str, expected: str, *arguments: object) -> list[Any]:
        found = self._code.call(getattr(self._schedule, function), *arguments)
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise self._mistake(function, f"returned {found!r}", expected)
        return list(found)

    def _mistake(self, function: str, found: str, expected: str) -> Exception:
        return self._code.mistake(f"{self._code.file}: {function} {found}; allowed: {expected}")

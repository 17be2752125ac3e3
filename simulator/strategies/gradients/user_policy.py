"""A policy of the user's own is asked like ours, and every answer of it is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.experiment.section import ExperimentError
from simulator.program.arrival import Policy, Request, Served
from simulator.strategies.plugins import Answer, UserCode

NAME = "policy"
"""The name that a file has to define, where no other is given."""


@dataclass(frozen=True, repr=False)
class UserPolicy(Policy):
    """A policy that the user's own code defines; its text form is that of the policy.

    Attributes:
        code: where it comes from.
        policy: what answers.
    """

    code: UserCode
    policy: Policy

    @classmethod
    def of(cls, code: UserCode) -> UserPolicy:
        """Return the policy in a module, or the one that a name in it is.

        Raises:
            ExperimentError: there is none; one line names the file.
        """
        value: Any = code.value
        if not isinstance(value, type | Policy):
            value = getattr(value, NAME, None)
        if isinstance(value, type) and issubclass(value, Policy):
            value = code.call(value)
        if not isinstance(value, Policy):
            raise code.mistake(
                f"{code.file} has no {NAME!r}, an object of a class derived from "
                "simulator.program.arrival.Policy"
            )
        return cls(code, value)

    def __repr__(self) -> str:
        return repr(self.policy)

    @property
    def is_lasting(self) -> bool:
        """The policy says this of itself."""
        return self.policy.is_lasting

    @property
    def bounds_lead(self) -> bool:
        """The policy says this of itself."""
        return self.policy.bounds_lead

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether a request may be served now."""
        return self._bool(self.policy.admits, request, served)

    def choose(self, waiting: Sequence[Request], served: Served) -> Request | None:
        """Return who is served next; None: nobody of them yet."""
        chosen = self._ask(self.policy.choose, waiting, served)
        if chosen is not None and chosen not in waiting:
            raise self._mistake("choose", chosen, "one of those waiting, or None")
        return chosen

    def counts(self, push: Request, served: Served) -> bool:
        """Tell whether a push that is accepted now goes into an update."""
        return self._bool(self.policy.counts, push, served)

    def is_due(self, served: Served) -> bool:
        """Tell whether the pending pushes make an update, the last one being accepted."""
        due = self._bool(self.policy.is_due, served)
        if due and not served.pending:
            raise self._mistake("is_due", due, "False where no push is pending")
        return due

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Return why workers with so many pushes cannot be served; None: they can."""
        text = self._ask(self.policy.refusal, pushes)
        if text is not None and not isinstance(text, str):
            raise self._mistake("refusal", text, "a text, or None")
        return text

    def _ask(self, question: Callable[..., Answer], *arguments: object) -> Answer:
        before = repr(vars(self.policy))  # a list that it keeps may have changed in place
        answer = self.code.call(question, *arguments)
        if repr(vars(self.policy)) != before:
            raise self.code.mistake(
                f"{self.code.file}: {question.__name__} has changed the policy; allowed: answers "
                "that follow from the question"
            )
        return answer

    def _bool(self, question: Callable[..., bool], *arguments: object) -> bool:
        answer = self._ask(question, *arguments)
        if not isinstance(answer, bool):
            raise self._mistake(question.__name__, answer, "True or False")
        return answer

    def _mistake(self, function: str, answer: object, allowed: str) -> ExperimentError:
        return self.code.mistake(
            f"{self.code.file}: {function} returned {answer!r}; allowed: {allowed}"
        )

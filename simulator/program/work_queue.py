"""The policy of a master that hands out microbatches to whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.program.arrival import Policy, Request, Served


@dataclass(frozen=True)
class WorkQueue(Policy):
    """Gives the next microbatch of a training step to whoever comes first, until all are given.

    After that every worker is told once that there is none. Nobody gets one of the next step
    before all were told so. With a synchronous update that is dynamic load balancing: fast
    workers do more (Hummel et al. 1992, "Factoring", calls chunks of one self-scheduling).

    Attributes:
        count: the microbatches of a training step.
    """

    count: int = 1

    @property
    def hands_out(self) -> bool:
        """A pull is a request for work."""
        return True

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether a worker has not yet heard that the step has no more work."""
        return served.refusals[request.rank] == min(served.refusals.values())

    def grant(self, request: Request, served: Served) -> int:
        """Return the number of the next microbatch of the step; -1: there is none left."""
        given = served.grants - self.count * min(served.refusals.values())
        return given if given < self.count else -1

    def num_served(self, requests: Mapping[int, int]) -> int:
        """Return how many of so many requests of each worker are served: others are skipped.

        Every worker has one for each microbatch of a step, and one to hear that there is no more;
        -1: it has not.
        """
        steps, left = divmod(max(requests.values()), self.count + 1)
        alike = len(set(requests.values())) == 1 and not left
        return steps * (self.count + len(requests)) if alike else -1

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Refuse a queue without work."""
        return None if self.count >= 1 else f"a step has {self.count} microbatches; allowed: 1 up"

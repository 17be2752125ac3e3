"""The policy of a replica that averages its parameters with whoever comes."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.arrival import Policy, Request, Served


@dataclass(frozen=True)
class Pairwise(Policy):
    """Serves whoever comes first, and gives a pair that averages the time to do so.

    Who pushes parameters, which are averaged with those of the server, pulls the average next;
    nothing else happens to them before that, neither a push of others nor a local request. Lian et
    al. 2018, "Asynchronous Decentralized Parallel Stochastic Gradient Descent", Algorithm 1.
    """

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether nobody is in the middle of averaging, or it is who asks."""
        averaging = [rank for rank, pushes in served.pushes.items() if pushes > served.pulls[rank]]
        return not averaging or (request.rank in averaging and not request.is_push)

    def counts(self, push: Request, served: Served) -> bool:
        """Tell that no push waits for an update: it is one."""
        return False

"""Arrival policies, which say who is served where the order of arrival decides.

A policy is pure: its answers follow from its arguments, so the simulator in virtual time and the
runtime in real time ask it the same questions and get the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Request(NamedTuple):
    """A message of a worker that waits to be accepted.

    Attributes:
        uid: that of the worker's instruction.
        rank: the worker.
        is_push: the worker sends; otherwise it receives.
    """

    uid: int
    rank: int
    is_push: bool


@dataclass
class Served:
    """The requests that a server has accepted so far, and those still to come.

    Attributes:
        decisions: requests that were accepted.
        pulls, pushes: by worker, those that were accepted.
        left: by worker, pushes that are still to come.
        updates: how often the parameters have been updated.
        version: by worker, `updates` at its last pull; 0 before the first.
        pending: the workers whose pushes go into the next update, in order.
        grants: how many microbatches were handed out.
        refusals: by worker, how often it was told that there is no work.
    """

    decisions: int = 0
    pulls: dict[int, int] = field(default_factory=dict)
    pushes: dict[int, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    updates: int = 0
    version: dict[int, int] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)
    grants: int = 0
    refusals: dict[int, int] = field(default_factory=dict)


class Outcome(NamedTuple):
    """The meaning of a decision: of the acceptance of one request.

    Attributes:
        counts: it is a push that goes into an update.
        pushes: how many pushes the update averages that is due now; 0: none is due.
        staleness: of a push, the updates since the last pull of its worker; 0 for a pull.
        granted: of a pull that asks for work, the microbatch that it gets; -1: none.
    """

    counts: bool
    pushes: int
    staleness: int
    granted: int = -1


@dataclass(frozen=True)
class Policy:
    """The rules by which a server accepts requests and updates its parameters.

    Whether a request may be served depends on what was served before, never on who else waits;
    and once it may, it may until it is. Who of several is served may depend on all of them.

    """

    @property
    def is_lasting(self) -> bool:
        """A request that may not be served yet may be once the others have been, in any order.

        A policy of which this is not so asks that workers wait for nobody but the server.
        """
        return True

    @property
    def bounds_lead(self) -> bool:
        """However long training goes on, no worker gets further ahead of the slowest than so far.

        In the long run all then go at the pace of the slowest.
        """
        return False

    @property
    def hands_out(self) -> bool:
        """A pull asks for work, not for parameters: see `grant`."""
        return False

    def grant(self, request: Request, served: Served) -> int:
        """Return the microbatch that a pull gets which is accepted now; -1: there is none."""
        return -1

    def num_served(self, requests: Mapping[int, int]) -> int:
        """Return how many of so many requests of each worker are served in the end."""
        return sum(requests.values())

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether a request may be served now."""
        return True

    def choose(self, waiting: Sequence[Request], served: Served) -> Request | None:
        """Return who is served next; None: nobody of them yet.

        Args:
            waiting: one or more, one a worker at most, by arrival, at equal times by rank.
            served: what happened before.
        """
        return next((request for request in waiting if self.admits(request, served)), None)

    def counts(self, push: Request, served: Served) -> bool:
        """Tell whether a push that is accepted now goes into an update."""
        return True

    def is_due(self, served: Served) -> bool:
        """Tell whether the pending pushes make an update, the last one being accepted."""
        return bool(served.pending)

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Return why workers with so many pushes cannot be served; None: they can."""
        return None


@dataclass(frozen=True)
class FirstCome(Policy):
    """Serves whoever comes first, and updates after every push.

    Dean et al. 2012, "Large Scale Distributed Deep Networks" (Downpour SGD).
    """


@dataclass(frozen=True)
class RandomOrder(Policy):
    """Serves one of those that wait, by a seed, and updates after every push."""

    seed: int = 0

    def choose(self, waiting: Sequence[Request], served: Served) -> Request | None:
        """Return one of those waiting; the seed and the number of the decision say which."""
        by_rank = sorted(waiting, key=lambda request: request.rank)
        return random.Random(f"{self.seed} {served.decisions}").choice(by_rank)


@dataclass(frozen=True)
class BoundedStaleness(Policy):
    """Serves whoever comes first, but lets no worker get too far ahead of the slowest.

    Of its clock c, which is how often it has pushed, a worker pulls once everybody has pushed of
    clock c - bound - 1, and so finds all of that. Its push waits until everybody has pulled of
    clock c - bound, and so is not found by then: a pull reads what Ho et al. allow, up to clock
    c + bound - 1 of others. With a bound of 0 that is what bulk-synchronous workers read. Ho et
    al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server",
    sections 3 and 4.
    """

    bound: int = 0

    @property
    def bounds_lead(self) -> bool:
        """It is so: a fast worker waits for the slowest."""
        return True

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether the slowest is close enough."""
        clock = served.pushes[request.rank] - self.bound
        if not request.is_push:
            return clock <= min(served.pushes.values())
        return all(pulls > clock or not served.left[rank] for rank, pulls in served.pulls.items())

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Refuse a negative bound."""
        return None if self.bound >= 0 else f"the bound is {self.bound}; allowed: 0 or more"


@dataclass(frozen=True)
class SoftSync(Policy):
    """Updates with the mean of what the first `count` workers push, however old it is.

    A worker whose push is pending gets no parameters before that update, so each has at most one
    in it: one push an update is asynchronous training, and one of every worker synchronous. An
    update takes fewer where no other worker has any left. Gupta, Zhang and Wang 2016, "Model
    Accuracy and Runtime Tradeoff in Distributed Deep Learning" (softsync, where a worker may push
    again into the same update); Dutta et al. 2018, "Slow and Stale Gradients Can Win the Race"
    (K-async).
    """

    count: int = 1

    @property
    def is_lasting(self) -> bool:
        """It is not so: which pushes are of one update depends on the order."""
        return False

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether a worker pushes, or waits for no update."""
        return request.is_push or request.rank not in served.pending

    def is_due(self, served: Served) -> bool:
        """Tell whether so many pushes are pending, or no other worker has any left."""
        others = (left for rank, left in served.left.items() if rank not in served.pending)
        return bool(served.pending) and (len(served.pending) >= self.count or not any(others))

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Refuse more pushes an update than workers."""
        if 1 <= self.count <= len(pushes):
            return None
        return f"an update takes pushes of {self.count} workers; allowed: 1 to {len(pushes)}"


@dataclass(frozen=True)
class FirstN(SoftSync):
    """Updates with the mean of the first `count` pushes of the newest version; drops late ones.

    A worker whose parameters were updated meanwhile pushed too late: its push is accepted, changes
    nothing, and it may go on at once. Chen et al. 2016, "Revisiting Distributed Synchronous SGD"
    (backup workers).
    """

    def counts(self, push: Request, served: Served) -> bool:
        """Tell whether a gradient is one of the newest parameters."""
        return served.version[push.rank] == served.updates


@dataclass(frozen=True)
class Recorded(Policy):
    """Serves requests in the order of a record; updates are those of the policy it is of.

    Attributes:
        policy: the one that decided when the record was made.
        order: the uids of the requests that one queue has served.
    """

    policy: Policy = field(default_factory=FirstCome)
    order: tuple[int, ...] = ()

    @property
    def bounds_lead(self) -> bool:
        """The policy of the record says so."""
        return self.policy.bounds_lead

    @property
    def hands_out(self) -> bool:
        """The policy of the record says so."""
        return self.policy.hands_out

    def grant(self, request: Request, served: Served) -> int:
        """Return what the policy of the record says."""
        return self.policy.grant(request, served)

    def admits(self, request: Request, served: Served) -> bool:
        """Tell whether a request is the next one of the record."""
        return served.decisions < len(self.order) and request.uid == self.order[served.decisions]

    def counts(self, push: Request, served: Served) -> bool:
        """Tell what the policy of the record says."""
        return self.policy.counts(push, served)

    def is_due(self, served: Served) -> bool:
        """Tell what the policy of the record says."""
        return self.policy.is_due(served)

    def refusal(self, pushes: Mapping[int, int]) -> str | None:
        """Return what the policy of the record says."""
        return self.policy.refusal(pushes)

"""Queues in which requests wait for a server to accept them: who asks, and what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

from simulator.program.arrival import Outcome, Policy, Request, Served
from simulator.program.batch import Batch
from simulator.program.columns import Columns
from simulator.program.operations import MESSAGES, RUNS_OF_PASSES, Op
from simulator.program.task import Task

LOCAL = frozenset({Op.SNAPSHOT, Op.OPTIMIZER_STEP})
"""Operations that may be a request of the rank that accepts: what reads or updates parameters."""


class Decision(NamedTuple):
    """Two instructions that met because of when they arrived, by their uids.

    Attributes:
        accept: that of the server.
        request: that of the worker.
    """

    accept: int
    request: int


@dataclass(frozen=True)
class AcceptQueue:
    """The instructions of one queue, by uid.

    Attributes:
        name: what tasks call it.
        policy: who is served next.
        server: the rank that accepts.
        accepts: the server's, in order.
        steps: the optimizer steps that depend on it, in order: the k-th on the k-th `accepts`.
        requests: of each worker, in order.
        pushes: those of the requests that send.
        passes: those for which a request got the microbatch, and that request.
        earlier: of requests for work, the one before it of the same training step.
    """

    name: str
    policy: Policy
    server: int
    accepts: tuple[int, ...]
    steps: tuple[int, ...]
    requests: dict[int, tuple[int, ...]]
    pushes: frozenset[int]
    passes: dict[int, int] = field(default_factory=dict)
    earlier: dict[int, int] = field(default_factory=dict)

    @cached_property
    def by_uid(self) -> dict[int, Request]:
        """The requests as policies see them."""
        return {
            uid: Request(uid, rank, uid in self.pushes)
            for rank, uids in self.requests.items()
            for uid in uids
        }

    @property
    def pushes_of(self) -> dict[int, int]:
        """The number of pushes of each worker."""
        return {rank: len(self.pushes.intersection(uids)) for rank, uids in self.requests.items()}


class Acceptance:
    """The decisions of one queue, as they are taken.

    Args:
        queue: whose.
        policy: who decides; None: the one that the program names.

    Attributes:
        served: what policies know.
        decisions: what was decided, in order.
        outcomes: what each decision meant.
    """

    def __init__(self, queue: AcceptQueue, policy: Policy | None = None) -> None:
        self.queue, self._policy = queue, policy or queue.policy
        self.served = Served(
            pulls=dict.fromkeys(queue.requests, 0),
            pushes=dict.fromkeys(queue.requests, 0),
            left=queue.pushes_of,
            version=dict.fromkeys(queue.requests, 0),
            refusals=dict.fromkeys(queue.requests, 0),
        )
        self.decisions: list[Decision] = []
        self.outcomes: list[Outcome] = []
        self._granted: dict[int, int] = {}  # by request

    def choose(self, waiting: Sequence[Request]) -> Request | None:
        """Return which of those waiting, by arrival, is served next; None: nobody yet."""
        return self._policy.choose(waiting, self.served) if waiting else None

    def accept(self, request: Request) -> Outcome:
        """Record that a request is served now; return what that means."""
        served, rank = self.served, request.rank
        accept = self.queue.accepts[served.decisions]
        counts, due, staleness, granted = False, 0, 0, -1
        if request.is_push:
            counts = self._policy.counts(request, served)
            served.pushes[rank] += 1
            served.left[rank] -= 1
            staleness = served.updates - served.version[rank]
            if counts:
                served.pending.append(rank)
            if self._policy.is_due(served):
                due = len(served.pending)
                served.updates += 1
                served.pending = []
        else:
            if self._policy.hands_out:
                granted = self._granted[request.uid] = self._policy.grant(request, served)
                served.grants += granted >= 0
                served.refusals[rank] += granted < 0
            served.pulls[rank] += 1
            served.version[rank] = served.updates
        served.decisions += 1
        self.decisions.append(Decision(accept, request.uid))
        self.outcomes.append(Outcome(counts, due, staleness, granted))
        return self.outcomes[-1]

    def microbatch_of(self, uid: int) -> int:
        """Return the microbatch that a pass is of; -1: none, as the request for it got none."""
        return self._granted.get(self.queue.passes[uid], -1)

    def is_skipped(self, request: int) -> bool:
        """Tell whether a request is not made, because the one before it was told of no work."""
        before = self.queue.earlier.get(request)
        return before is not None and self._granted.get(before, -1) < 0


def queues_of(
    lists: Sequence[Columns], members: Sequence[int], begins: Sequence[int]
) -> list[AcceptQueue]:
    """Return the queues of a program, by name.

    Args:
        lists: the instructions of each list.
        members: the global rank of each list.
        begins: the uid of the first instruction of each list.
    """
    accepts: dict[str, tuple[int, Policy, tuple[int, ...]]] = {}
    steps: dict[str, tuple[int, ...]] = {}
    requests: dict[str, dict[int, tuple[int, ...]]] = {}
    pushes: dict[str, set[int]] = {}
    passes: dict[str, dict[int, int]] = {}
    earlier: dict[str, dict[int, int]] = {}
    for rank, first, columns in zip(members, begins, lists, strict=True):
        if not any(task.queue for task in columns.tasks):
            continue
        policies = {task.queue: task.policy for task in columns.tasks if task.policy is not None}
        for name in dict.fromkeys(task.queue for task in columns.tasks if task.queue):
            mine = partial(_uids, columns, first, name)
            asked = mine(is_request)
            if asked:
                requests.setdefault(name, {})[rank] = asked
                pushes.setdefault(name, set()).update(mine(lambda task: task.op is Op.SEND))
                places = {_batch(columns, uid - first): uid for uid in asked}
                passes.setdefault(name, {}).update(
                    {
                        uid: places.get(_batch(columns, uid - first), -1)
                        for uid in mine(lambda task: task.op in RUNS_OF_PASSES)
                    }
                )
                earlier.setdefault(name, {}).update(
                    {
                        uid: before
                        for before, uid in pairwise(asked)
                        if columns.step[before - first] == columns.step[uid - first]
                    }
                )
            if name in policies:
                accepts[name] = rank, policies[name], mine(lambda task: task.op is Op.ACCEPT)
                steps[name] = mine(is_dependent)
    return [
        AcceptQueue(
            name,
            policy,
            server,
            uids,
            steps[name],
            requests.get(name, {}),
            frozenset(pushes.get(name, ())),
            passes.get(name, {}),
            earlier.get(name, {}) if policy.hands_out else {},
        )
        for name, (server, policy, uids) in sorted(accepts.items())
    ]


def is_request(task: Task) -> bool:
    """Tell whether a task of a queue waits to be served: a message, or a local request."""
    return task.op in MESSAGES or is_local(task)


def is_local(task: Task) -> bool:
    """Tell whether a task is a request of the rank that accepts it, which it names as the peer."""
    return bool(task.queue) and task.op in LOCAL and task.peer >= 0


def is_dependent(task: Task) -> bool:
    """Tell whether a task of a queue is an optimizer step that depends on who was served."""
    return task.op is Op.OPTIMIZER_STEP and task.peer < 0


def _batch(columns: Columns, position: int) -> Batch:
    return int(columns.step[position]), int(columns.microbatch[position])


def _uids(
    columns: Columns, first: int, name: str, select: Callable[[Task], bool]
) -> tuple[int, ...]:
    """Return the uids of the instructions of a list in a queue that `select` picks."""
    found = columns.positions(lambda task: (task.queue == name and select(task)) or None)
    return tuple((found[True] + first).tolist()) if found else ()

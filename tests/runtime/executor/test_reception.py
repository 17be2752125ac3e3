"""A reception serves who has come, when the policy says so, and passes on what goes wrong."""

from __future__ import annotations

import queue
from collections.abc import Sequence

import pytest

from parameter_server import server_program
from runtime.executor.reception import Reception
from simulator import load, lower
from simulator.program.accept_queue import Acceptance, Decision
from simulator.program.arrival import BoundedStaleness, FirstCome, Policy


class Bell:
    """Announcements of a test, heard in order; an error is raised."""

    def __init__(self, policy: Policy, steps: Sequence[int]) -> None:
        (self.queue,) = server_program(policy, steps).queues
        self._rung: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        self.reception = Reception(Acceptance(self.queue), self._hear)

    def ring(self, what: int | Exception) -> None:
        self._rung.put(what)

    def _hear(self, number: int) -> int:
        rung = self._rung.get(timeout=60)
        if isinstance(rung, Exception):
            raise rung
        return rung


def test_requests_are_served_as_they_come() -> None:
    bell = Bell(FirstCome(), [1, 1])
    (pull, push), (other, last) = bell.queue.requests.values()
    for uid in (other, pull, push, last):
        bell.ring(uid)
        served, _ = bell.reception.serve(60.0)
        assert served.uid == uid
    assert bell.reception.acceptance.decisions == [
        Decision(accept, uid)
        for accept, uid in zip(bell.queue.accepts, (other, pull, push, last), strict=True)
    ]
    due = [bell.reception.outcome_of(step).pushes for step in bell.queue.steps]
    assert due == [0, 0, 1, 1]


def test_who_may_not_be_served_waits() -> None:
    bell = Bell(BoundedStaleness(0), [2, 2])
    (pull, push, again, last), (other, first, second, _) = bell.queue.requests.values()
    for uid in (pull, other, push):
        bell.ring(uid)
        bell.reception.serve(60.0)
    bell.ring(again)  # before the other has pushed
    bell.ring(first)
    assert [bell.reception.serve(60.0)[0].uid for _ in range(2)] == [first, again]
    bell.ring(last)  # before the other has pulled
    bell.ring(second)
    assert [bell.reception.serve(60.0)[0].uid for _ in range(2)] == [second, last]
    with pytest.raises(TimeoutError, match=r"; not there: rank 2$"):
        bell.reception.serve(0.01)
    bell.ring(RuntimeError("that is all"))  # ends the thread


def test_nobody_comes() -> None:
    bell = Bell(FirstCome(), [1])
    with pytest.raises(TimeoutError) as error:
        bell.reception.serve(0.01)
    assert str(error.value) == "nobody to serve within 0.01 s; not there: rank 1"
    bell.ring(RuntimeError("that is all"))  # ends the thread


def test_what_goes_wrong_is_raised_where_somebody_waits() -> None:
    bell = Bell(FirstCome(), [1])
    bell.ring(RuntimeError("Connection closed by peer"))
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        bell.reception.serve(60.0)


def test_a_local_request_waits_until_it_is_carried_out() -> None:
    """Rank 1 of two replicas that average serves itself, and listens for rank 0 alone."""
    keys = ["data=2", "pipeline=1", "data_style=ad-psgd", "topology=ring", "model=mlp"]
    (found,) = lower(load(None, keys)).queues
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    reception = Reception(Acceptance(found), lambda number: heard.get(timeout=60))
    copy, update = found.requests[1]
    with pytest.raises(TimeoutError, match="not served within 0 s"):
        reception.wait_for(copy, 0.0)
    reception.come(copy)
    assert reception.serve(60.0)[0].uid == copy
    reception.carried_out(copy)
    reception.wait_for(copy, 60.0)
    push, pull = found.requests[0]
    heard.put(push)
    assert reception.serve(60.0)[0].uid == push
    reception.come(update)  # while the pair averages
    heard.put(pull)
    assert [reception.serve(60.0)[0].uid for _ in range(2)] == [pull, update]

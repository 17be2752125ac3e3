"""Policies serve whom they say, and update when they say."""

from __future__ import annotations

import pytest

from simulator.program.accept_queue import Acceptance, AcceptQueue
from simulator.program.arrival import (
    BoundedStaleness,
    FirstCome,
    FirstN,
    Policy,
    RandomOrder,
    Recorded,
    SoftSync,
)


def acceptance(policy: Policy, workers: int = 3, steps: int = 4) -> Acceptance:
    """Workers 1, 2, …, whose requests are pull, push, pull, push, …; 10 · rank + number."""
    ranks = range(1, workers + 1)
    requests = {rank: tuple(10 * rank + n for n in range(2 * steps)) for rank in ranks}
    pushes = frozenset(uid for uids in requests.values() for uid in uids[1::2])
    accepts = tuple(range(100, 100 + 2 * steps * workers))
    return Acceptance(AcceptQueue("q", policy, 0, accepts, (), requests, pushes))


class Bench:
    """Asks a policy as a server does; each worker's next request is known by its count."""

    def __init__(self, policy: Policy, workers: int = 3, steps: int = 4) -> None:
        self.acceptance = acceptance(policy, workers, steps)
        self.served = dict.fromkeys(self.acceptance.queue.requests, 0)

    def request(self, rank: int):
        uid = self.acceptance.queue.requests[rank][self.served[rank]]
        return self.acceptance.queue.by_uid[uid]

    def chosen(self, *ranks: int) -> int | None:
        request = self.acceptance.choose([self.request(rank) for rank in ranks])
        return None if request is None else request.rank

    def serve(self, *ranks: int) -> list[tuple[bool, int, int]]:
        outcomes = []
        for rank in ranks:
            assert self.chosen(rank) == rank
            outcome = self.acceptance.accept(self.request(rank))
            outcomes.append((outcome.counts, outcome.pushes, outcome.staleness))
            self.served[rank] += 1
        return outcomes


def test_first_come_updates_after_every_push_and_counts_what_came_between() -> None:
    bench = Bench(FirstCome())
    assert bench.chosen(2, 1, 3) == 2
    assert bench.serve(1, 2, 3) == [(False, 0, 0)] * 3
    assert bench.serve(2, 3, 1) == [(True, 1, 0), (True, 1, 1), (True, 1, 2)]
    assert bench.serve(2, 2, 2, 2) == [(False, 0, 0), (True, 1, 0), (False, 0, 0), (True, 1, 0)]


def test_a_bound_holds_back_pulls_of_the_fast() -> None:
    bench = Bench(BoundedStaleness(1))
    bench.serve(1, 2, 3, 1, 1, 1)
    assert bench.chosen(1) is None  # two pushes ahead of 2 and 3
    assert bench.chosen(1, 3, 2) == 3
    bench.serve(3, 2)
    assert bench.chosen(1) == 1


def test_a_bound_holds_back_pushes_that_the_slow_may_not_read_yet() -> None:
    bench = Bench(BoundedStaleness(0), workers=2)
    bench.serve(1)
    assert bench.chosen(1) is None  # its push would be read by the first pull of 2
    bench.serve(2, 1, 2, 2)
    assert bench.chosen(2) is None
    bench = Bench(BoundedStaleness(1), workers=2)
    bench.serve(1, 1, 1)  # a push of clock 0 may be read by a pull of clock 0
    assert bench.chosen(1) is None  # one of clock 1 not
    bench.serve(2, 1)


def test_soft_synchronous_updates_take_so_many_workers_and_the_last_what_is_left() -> None:
    bench = Bench(SoftSync(2), steps=1)
    bench.serve(1, 2, 3)
    assert bench.serve(3, 1, 2) == [(True, 0, 0), (True, 2, 0), (True, 1, 1)]
    bench = Bench(SoftSync(2))
    bench.serve(1, 2, 3, 1)
    assert bench.chosen(1) is None  # its push is pending
    assert bench.serve(2, 2, 1, 3)[2:] == [(False, 0, 0), (True, 0, 1)]  # late, and it counts


def test_of_the_first_n_the_pending_wait_and_the_late_are_dropped() -> None:
    bench = Bench(FirstN(2))
    bench.serve(1, 2, 3)
    assert bench.serve(1) == [(True, 0, 0)]
    assert bench.chosen(1) is None
    assert bench.serve(2) == [(True, 2, 0)]
    assert bench.chosen(1) == 1
    assert bench.serve(3) == [(False, 0, 1)]
    assert bench.serve(3, 3) == [(False, 0, 0), (True, 0, 0)]


def test_the_last_updates_of_the_first_n_take_what_can_still_come() -> None:
    bench = Bench(FirstN(2), workers=2, steps=2)
    bench.serve(1, 2, 1, 2, 2)
    assert bench.serve(2) == [(True, 0, 0)]  # the other one has a push left
    bench = Bench(FirstN(2), workers=3, steps=1)
    bench.serve(1, 2, 3, 1, 2)
    assert bench.serve(3) == [(False, 0, 1)]
    bench = Bench(FirstN(2), workers=3, steps=2)
    bench.serve(1, 2, 3, 1, 2, 1, 2, 1, 2)
    assert bench.acceptance.served.updates == 2
    assert bench.serve(3, 3, 3) == [(False, 0, 2), (False, 0, 0), (True, 1, 0)]


def test_a_random_order_depends_on_the_seed_and_the_number_alone() -> None:
    def picked(seed: int, *ranks: int) -> list[int | None]:
        bench = Bench(RandomOrder(seed))
        found = []
        for _ in range(8):
            found.append(bench.chosen(*ranks))
            bench.acceptance.served.decisions += 1
        return found

    assert picked(0, 1, 2, 3) == picked(0, 3, 2, 1)
    assert set(picked(0, 1, 2, 3)) == {1, 2, 3}
    assert picked(0, 1, 2, 3) != picked(1, 1, 2, 3)
    assert Bench(RandomOrder()).acceptance.choose([]) is None


def test_a_record_is_repeated_and_updates_stay_those_of_its_policy() -> None:
    bench = Bench(Recorded(SoftSync(2), (20, 10, 21, 11)))
    assert bench.chosen(1, 3) is None
    assert bench.chosen(1, 2) == 2
    assert bench.serve(2, 1, 2, 1)[2:] == [(True, 0, 0), (True, 2, 0)]
    assert bench.chosen(1, 2, 3) is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (BoundedStaleness(-1), "the bound is -1; allowed: 0 or more"),
        (SoftSync(0), "an update takes pushes of 0 workers; allowed: 1 to 2"),
        (SoftSync(3), "an update takes pushes of 3 workers; allowed: 1 to 2"),
        (FirstN(3), "an update takes pushes of 3 workers; allowed: 1 to 2"),
        (Recorded(FirstN(3)), "an update takes pushes of 3 workers; allowed: 1 to 2"),
        (FirstN(2), None),
        (SoftSync(2), None),
        (FirstCome(), None),
    ],
)
def test_what_cannot_be_is_refused(policy: Policy, reason: str | None) -> None:
    assert policy.refusal({1: 3, 2: 2}) == reason

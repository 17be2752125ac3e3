"""The master of a work queue: everything is given out once, and everybody is told of the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.program.arrival import Recorded, Request, Served
from simulator.program.work_queue import WorkQueue


def served(workers: int) -> Served:
    return Served(refusals=dict.fromkeys(range(workers), 0))


def serve(policy: WorkQueue, request: Request, so_far: Served) -> int:
    """Do what an acceptance does with a pull."""
    granted = policy.grant(request, so_far)
    so_far.grants += granted >= 0
    so_far.refusals[request.rank] += granted < 0
    return granted


@given(count=st.integers(1, 6), workers=st.integers(1, 4), data=st.data())
def test_each_step_gives_everything_out_once_whoever_comes(
    count: int, workers: int, data: st.DataObject
) -> None:
    policy, so_far = WorkQueue(count), served(workers)
    for step in range(2):
        granted = []
        for _ in range(count + workers):
            able = [
                request
                for rank in range(workers)
                if policy.admits(request := Request(0, rank, False), so_far)
            ]
            granted.append(serve(policy, data.draw(st.sampled_from(able)), so_far))
        assert granted == [*range(count), *[-1] * workers]
        assert set(so_far.refusals.values()) == {step + 1}


def test_nobody_goes_on_to_the_next_step_before_the_others() -> None:
    policy, so_far = WorkQueue(1), served(2)
    first, second = Request(0, 0, False), Request(1, 1, False)
    assert [serve(policy, first, so_far), serve(policy, first, so_far)] == [0, -1]
    assert not policy.admits(first, so_far)
    assert policy.choose([first, second], so_far) == second
    assert serve(policy, second, so_far) == -1
    assert policy.admits(first, so_far) and policy.grant(first, so_far) == 0


@pytest.mark.parametrize(
    ("requests", "expected"),
    [({0: 4, 1: 4}, 5), ({0: 8, 1: 8}, 10), ({0: 4}, 4), ({0: 4, 1: 8}, -1), ({0: 3, 1: 3}, -1)],
)
def test_requests_behind_the_answer_that_there_is_none_are_not_served(
    requests: dict[int, int], expected: int
) -> None:
    assert WorkQueue(3).num_served(requests) == expected


def test_a_record_hands_out_what_its_policy_does() -> None:
    record = Recorded(WorkQueue(2), (7, 9))
    assert record.hands_out
    assert record.grant(Request(7, 0, False), served(1)) == 0
    assert WorkQueue(0).refusal({}) == "a step has 0 microbatches; allowed: 1 up"

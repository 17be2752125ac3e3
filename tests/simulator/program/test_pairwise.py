"""A pair that averages is not disturbed, and everybody else is served as they come."""

from __future__ import annotations

from simulator.program.arrival import Request, Served
from simulator.program.pairwise import Pairwise


def test_who_has_pushed_pulls_before_anybody_else() -> None:
    policy = Pairwise()
    served = Served(pulls={0: 0, 1: 0, 2: 0}, pushes={0: 0, 1: 0, 2: 0})
    own, push, pull, other = (
        Request(1, 1, False),
        Request(2, 0, True),
        Request(3, 0, False),
        Request(4, 2, True),
    )
    assert policy.choose([own, push, other], served) == own
    served.pushes[0] = 1  # 0 is averaging
    assert policy.choose([own, other], served) is None
    assert policy.choose([own, other, pull], served) == pull
    served.pulls[0] = 1
    assert policy.choose([other, own], served) == other
    assert not policy.counts(push, served) and not policy.is_due(served)

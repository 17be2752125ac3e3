"""Calibrated profiles: kept without loss, refused when damaged, interpolated."""

from __future__ import annotations

import pytest

from simulator.cluster.collective_algorithms import ring_seconds
from simulator.cluster.profile import Profile
from simulator.cluster.timing import Points, Timing


def timed(points: list[tuple[int, float]]) -> Points:
    return [(size, Timing.certain(seconds)) for size, seconds in points]


PROFILE = Profile(
    machine={"cores": 2, "hostname": "box", "torch": "2.13"},
    device="cuda",
    passes={"F fp32: x × 3 + y": Timing.of([0.1, 0.05, 0.30000000000000004])},
    messages=timed([(1, 1e-3), (1000, 2e-3)]),
    collectives={"ALL_REDUCE": {2: timed([(8, 1e-4)]), 4: timed([(8, 3e-4), (80, 5e-4)])}},
    issue_s=1e-5,
    wake_s=2e-5,
    transfer_cores=0.5,
    transfer_loss=0.25,
    busy_ranks=4,
    peak_flops={"fp32": 1.5e12},
)


def seconds(op: str, size: int, nbytes: int) -> float:
    timing = PROFILE.collective(op, size, nbytes)
    assert timing is not None
    return timing.mean_s


def test_all_reduces_of_a_group_size_that_was_not_measured() -> None:
    assert seconds("ALL_REDUCE", 4, 44) == pytest.approx(4e-4)
    assert seconds("ALL_REDUCE", 2, 10**9) == 1e-4
    scale = ring_seconds("ALL_REDUCE", 8, 44, 1e-4, 1e9) / ring_seconds(
        "ALL_REDUCE", 4, 44, 1e-4, 1e9
    )
    assert seconds("ALL_REDUCE", 8, 44) == pytest.approx(4e-4 * scale)
    # 3 is as far from 2 as from 4: the smaller one
    scale = ring_seconds("ALL_REDUCE", 3, 44, 1e-4, 1e9) / ring_seconds(
        "ALL_REDUCE", 2, 44, 1e-4, 1e9
    )
    assert seconds("ALL_REDUCE", 3, 44) == pytest.approx(1e-4 * scale)

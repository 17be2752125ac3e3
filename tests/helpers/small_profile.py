"""A profile with a little of everything, and points of exact times."""

from __future__ import annotations

from simulator.cluster.profile import Profile
from simulator.cluster.timing import Points, Timing
from simulator.program.operations import Op


def timed(points: list[tuple[int, float]]) -> Points:
    return [(size, Timing.certain(seconds)) for size, seconds in points]


PROFILE = Profile(
    machine={"cores": 2, "hostname": "box", "torch": "2.13"},
    device="cuda",
    passes={"F fp32: x × 3 + y": Timing.of([0.1, 0.05, 0.30000000000000004])},
    messages=timed([(1, 1e-3), (1000, 2e-3)]),
    collectives={Op.ALL_REDUCE: {2: timed([(8, 1e-4)]), 4: timed([(8, 3e-4), (80, 5e-4)])}},
    remote_messages=timed([(1, 3e-3), (1000, 9e-3)]),
    remote_collectives={Op.ALL_REDUCE: {2: timed([(8, 7e-4)])}},
    issue_s=1e-5,
    wake_s=2e-5,
    transfer_cores=0.5,
    transfer_loss=0.25,
    busy_ranks=4,
    peak_flops={"fp32": 1.5e12},
)

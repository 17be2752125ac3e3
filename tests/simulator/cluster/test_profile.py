"""Calibrated profiles: kept without loss, refused when damaged, interpolated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cluster.collective_algorithms import ring_seconds
from simulator.cluster.timing import Timing
from simulator.program.operations import Op
from small_profile import PROFILE


def seconds(op: str, size: int, nbytes: int) -> float:
    timing = PROFILE.collective(op, size, nbytes)
    assert timing is not None
    return timing.mean_s


def test_all_reduces_of_a_group_size_that_was_not_measured() -> None:
    assert seconds(Op.ALL_REDUCE, 4, 44) == pytest.approx(4e-4)
    assert seconds(Op.ALL_REDUCE, 2, 10**9) == 1e-4
    scale = ring_seconds(Op.ALL_REDUCE, 8, 44, 1e-4, 1e9) / ring_seconds(
        Op.ALL_REDUCE, 4, 44, 1e-4, 1e9
    )
    assert seconds(Op.ALL_REDUCE, 8, 44) == pytest.approx(4e-4 * scale)
    # 3 is as far from 2 as from 4: the smaller one
    scale = ring_seconds(Op.ALL_REDUCE, 3, 44, 1e-4, 1e9) / ring_seconds(
        Op.ALL_REDUCE, 2, 44, 1e-4, 1e9
    )
    assert seconds(Op.ALL_REDUCE, 3, 44) == pytest.approx(1e-4 * scale)


def test_sums_of_another_type_take_what_was_measured_of_it() -> None:
    slow = {"fp16": {Op.ALL_REDUCE: {2: [(44, Timing.certain(7e-4))]}}}
    profile = replace(PROFILE, narrow_collectives=slow)
    found = [profile.collective(Op.ALL_REDUCE, 2, 44, dtype=of) for of in ("fp16", "bf16", "")]
    assert [timing and timing.mean_s for timing in found] == [7e-4, 1e-4, 1e-4]

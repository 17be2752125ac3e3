"""Rings and slowest pairs of islands without a switch."""

from __future__ import annotations

import pytest

from simulator.cluster.catalogue import load_preset
from simulator.cluster.nvlink import ring_count, slowest_pair

CUBE = load_preset("dgx-v100").topology.mesh


@pytest.mark.parametrize(
    ("members", "rings"),
    [(2, 1), (3, 2), (4, 4), (5, 0), (6, 2), (7, 4), (8, 6)],
)
def test_rings_of_the_hybrid_cube_mesh(members: int, rings: int) -> None:
    """Measured bus bandwidths of 2 to 8 GPUs are these times 22.5 GB/s; five have no ring."""
    assert CUBE
    assert all(sum(row) == 6 for row in CUBE)
    assert ring_count(CUBE, tuple(range(members))) == rings


def test_the_slowest_pair_of_a_mesh() -> None:
    assert CUBE
    assert slowest_pair(CUBE, (0, 3), 25.0, 10.0) == 50.0
    assert slowest_pair(CUBE, (0, 1, 3), 25.0, 10.0) == 2 * 25.0
    assert slowest_pair(CUBE, (0, 4, 7), 25.0, 10.0) == 2 * 10.0  # no link from 0 to 7

"""The ring formula by hand."""

from __future__ import annotations

import pytest

from simulator.cluster.collective_algorithms import ring_seconds
from simulator.cluster.communication_costs import CommunicationCosts
from simulator.cluster.library import Library
from simulator.cluster.links import Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.topology import Topology
from simulator.program.operations import Op


@pytest.mark.parametrize(
    ("size", "nbytes", "latency", "bandwidth", "expected"),
    [
        (1, 1e9, 1.0, 1.0, 0.0),
        (2, 64, 0.0, 8.0, 8.0),
        (4, 64, 0.0, 8.0, 12.0),
        (4, 0, 0.5, 8.0, 3.0),
        (8, 64, 0.25, 4.0, 28.0 + 3.5),
    ],
)
def test_ring_by_hand(size, nbytes, latency, bandwidth, expected: float) -> None:
    assert ring_seconds(Op.ALL_REDUCE, size, nbytes, latency, bandwidth) == expected


@pytest.mark.parametrize(
    ("size", "nbytes", "latency", "bandwidth", "expected"),
    [(2, 64, 0.0, 8.0, 8.0), (4, 64, 0.0, 8.0, 8.0), (8, 64, 0.25, 4.0, 16.0 + 1.75)],
)
@pytest.mark.parametrize("op", [Op.REDUCE, Op.BROADCAST])
def test_chain_by_hand(op, size, nbytes, latency, bandwidth, expected: float) -> None:
    """The busbw of nccl-tests is the algbw, whatever the number of ranks."""
    assert ring_seconds(op, size, nbytes, latency, bandwidth) == expected


RINGS = [Op.ALL_REDUCE, Op.ALL_GATHER, Op.REDUCE_SCATTER, Op.REDUCE, Op.BROADCAST]


@pytest.mark.parametrize("op", RINGS)
def test_a_ring_moves_what_the_formula_says(op: str) -> None:
    """On one island, the way of a ring is the formula without the library's constants."""
    node = Node(("gpu",) * 4, per_island=4)
    link = Link(4.0, {"Simple": Protocol(0.5, 1.0)})
    costs = CommunicationCosts(Topology(Nodes.of([node]), island=link), Library(), "ring")
    cost = costs.cost(Op(op), (0, 1, 2, 3), 64)
    assert cost.seconds == ring_seconds(op, 4, 64, 0.5, 4.0)

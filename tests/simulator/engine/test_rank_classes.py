"""Ranks are of one class if nothing tells them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.cluster.catalogue import load_preset
from simulator.cluster.nodes import Nodes
from simulator.cluster.placement import Placement
from simulator.cluster.topology import Tier, Topology
from simulator.engine.rank_classes import codes_of_groups, mixed, rank_classes
from simulator.engine.rank_groups import Groups


def classes(topology: Topology, *groups: Groups, stages: list[int] | None = None) -> list[int]:
    """Classes by their first rank."""
    count = groups[0].ranks.size
    placement = Placement(topology, np.arange(count))
    found = rank_classes(placement, np.array(stages or [0] * count), groups).tolist()
    return [found.index(number) for number in found]


def pairs(count: int) -> Groups:
    return Groups(np.arange(count).reshape(-1, 2))


def nodes_of(per_node: int, preset: str = "dgx-h100") -> Topology:
    return load_preset(preset).resized(nodes=8, devices_per_node=per_node).topology


@pytest.mark.parametrize(
    ("per_node", "expected"),
    [
        (1, [0] * 8),
        (2, [0] * 8),
        # a node of three has a whole pair, and half of the one that it shares with the next node
        (3, [0, 0, 2, 2, 0, 0, 0, 0]),
        (4, [0] * 8),
    ],
)
def test_pairs_that_a_node_divides_are_others(per_node: int, expected: list[int]) -> None:
    assert classes(nodes_of(per_node), pairs(8)) == expected


def test_stages_differ() -> None:
    assert classes(nodes_of(8), pairs(8), stages=[0, 1] * 4) == [0, 1] * 4


def test_who_talks_to_others_is_another_one() -> None:
    """Rings of four on nodes of three: at the edges of a node, ranks send to another node."""
    rows = np.arange(8).reshape(2, 4)
    assert classes(nodes_of(8), Groups(rows, "ring")) == [0] * 8
    whole = Groups(np.arange(8).reshape(1, 8), "ring")
    assert classes(nodes_of(4), whole) == [0, 1, 1, 3, 0, 1, 1, 3]


def test_partners_of_partners_count() -> None:
    """A ring of pairs, of which the last one, of 0 and 7, is another one: 3 and 4 are farthest."""
    others = Groups(np.array([[0, 7], [1, 2], [3, 4], [5, 6]]))
    assert classes(nodes_of(8), pairs(8), others) == [0, 1, 2, 3, 3, 2, 1, 0]


def test_who_shares_a_card_with_others_is_another_one() -> None:
    """Two devices a card; in the last node one has the card for itself."""
    topology = replace(load_preset("dgx-v100").resized(nodes=2).topology, mesh=None)
    assert topology.nodes.first.ports == 4
    found = classes(topology, Groups(np.arange(11).reshape(11, 1)))
    assert found == [0] * 10 + [10]


def test_leaves_that_are_not_full_are_others() -> None:
    topology = replace(nodes_of(1), tiers=(Tier(2, 1.0),))
    assert classes(topology, Groups(np.arange(5).reshape(5, 1))) == [0, 0, 0, 0, 4]


def test_nodes_with_other_cards_are_others() -> None:
    topology = nodes_of(1)
    slow = replace(topology.nodes.first, nic_bandwidth=1.0)
    mixed_nodes = replace(topology, nodes=Nodes.of([topology.nodes.first, slow] * 2))
    assert classes(mixed_nodes, Groups(np.arange(4).reshape(4, 1))) == [0, 1, 0, 1]


def test_in_a_mesh_links_count() -> None:
    """DGX-1: two links between devices 0 and 3, 0 and 4, 1 and 2 …; one between 0 and 1."""
    topology = load_preset("dgx-v100").topology
    assert topology.mesh
    rows = np.array([[0, 1], [2, 3], [4, 7], [5, 6]])
    links = [topology.mesh[a][b] for a, b in rows]
    found = classes(topology, Groups(rows))
    assert [found[row[0]] for row in rows] == [found[row[1]] for row in rows]
    for a in range(4):
        for b in range(4):
            if links[a] != links[b]:
                assert found[rows[a][0]] != found[rows[b][0]]


def test_groups_of_one_class_have_one_code() -> None:
    topology = nodes_of(3)
    placement = Placement(topology, np.arange(8))
    groups = pairs(8)
    found = rank_classes(placement, np.zeros(8, dtype=int), [groups])
    codes = codes_of_groups(groups, placement, found).tolist()
    assert codes[0] == codes[2] == codes[3] != codes[1]


def test_codes_differ() -> None:
    numbers = np.arange(100_000)
    assert len(set(mixed(numbers).tolist())) == numbers.size
    assert mixed(numbers[:3]).tolist() == mixed(np.array([0, 1, 2])).tolist()

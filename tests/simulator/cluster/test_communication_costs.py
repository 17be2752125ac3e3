"""Collectives: closed forms by hand, the choice among algorithms, bytes over links."""

from __future__ import annotations

from dataclasses import replace
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ExperimentError, load, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.collective_algorithms import OPERATIONS, obstacle
from simulator.cluster.communication_costs import CommunicationCosts
from simulator.cluster.library import InNetwork, Library
from simulator.cluster.links import Connection, Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.preset_files import preset_names
from simulator.cluster.resolve import resolve
from simulator.cluster.resource import Direction, ResourceKind
from simulator.cluster.topology import NODE, PORT, Tier, Topology
from simulator.program.operations import Op

FAST, SLOW, START = 1e-6, 5e-6, 1e-5
LIBRARY = Library(START, algorithms=tuple(OPERATIONS), in_network=InNetwork(2e-6, 0.5, devices=2))


def topology(nodes: int = 4, devices: int = 4, nics: int = 4, tiers: tuple[Tier, ...] = ()):
    """Islands of 100 GB/s a device; network cards of 10 GB/s."""
    node = Node(("gpu",) * devices, per_island=devices, nics=nics, nic_bandwidth=10e9)
    return Topology(
        Nodes(((node, nodes),)),
        island=Link(100e9, {"Simple": Protocol(FAST, 1.0)}),
        network=Link(0.0, {"Simple": Protocol(SLOW, 1.0)}),
        tiers=tiers,
    )


def cost(algorithm: str, op: str, group: tuple[int, ...], nbytes: float, **sizes) -> float:
    return CommunicationCosts(topology(**sizes), LIBRARY, algorithm).cost(op, group, nbytes).seconds


ALL = tuple(range(16))
S = 1.6e9


@pytest.mark.parametrize(
    ("algorithm", "op", "group", "expected"),
    [
        # one island: 2(n-1)/n bytes over 100 GB/s
        ("ring", Op.ALL_REDUCE, (0, 1, 2, 3), 6 * FAST + 1.5 * S / 100e9),
        ("ring", Op.ALL_GATHER, (0, 1, 2, 3), 3 * FAST + 0.75 * S / 100e9),
        ("ring", Op.REDUCE_SCATTER, (0, 1), FAST + 0.5 * S / 100e9),
        ("halving-doubling", Op.ALL_REDUCE, (0, 1, 2, 3), 4 * FAST + 1.5 * S / 100e9),
        ("tree", Op.ALL_REDUCE, (0, 1, 2, 3), 6 * FAST + 2 * S / 100e9),
        ("in-network", Op.ALL_REDUCE, (0, 1, 2, 3), 2e-6 + 1.25 * S / 50e9),
        ("pairwise", Op.ALL_TO_ALL, (0, 1, 2, 3), 3 * FAST + 0.75 * S / 100e9),
        # a chain: all bytes over every link
        ("ring", Op.REDUCE, (0, 1, 2, 3), 3 * FAST + S / 100e9),
        ("ring", Op.BROADCAST, ALL, 12 * FAST + 3 * SLOW + S / 40e9),
        ("ring", Op.BROADCAST, (0, 4), SLOW + S / 10e9),
        # four nodes, 40 GB/s each: a ring crosses three times, both ways round
        ("ring", Op.ALL_REDUCE, ALL, 24 * FAST + 6 * SLOW + 30 / 16 * S / 40e9),
        ("tree", Op.ALL_REDUCE, ALL, 6 * FAST + 4 * SLOW + 2 * S / 40e9),
        ("tree", Op.ALL_REDUCE, (0, 4), 2 * SLOW + S / 10e9),  # two ends: up and down at once
        ("hierarchical", Op.ALL_REDUCE, ALL,
         6 * FAST + 6 * SLOW + 1.5 * S * (1 / 100e9 + 1 / 40e9)),
        ("halving-doubling", Op.ALL_REDUCE, ALL,
         4 * FAST + 4 * SLOW + 1.5 * S * (1 / 100e9 + 1 / 40e9)),
        ("in-network", Op.ALL_REDUCE, ALL, 2e-6 + 4 * SLOW + 2 * S / 40e9),
        # each of four ranks of a node sends 12/16 of its bytes to other nodes
        ("pairwise", Op.ALL_TO_ALL, ALL, 3 * FAST + 12 * SLOW + 4 * 0.75 * S / 40e9),
        ("hierarchical", Op.ALL_TO_ALL, ALL,
         3 * FAST + 3 * SLOW + 0.75 * S / 100e9 + 4 * 0.75 * S / 40e9),
        # one rank a node: its own card
        ("ring", Op.ALL_REDUCE, (0, 4, 8, 12), 6 * SLOW + 1.5 * S / 10e9),
    ],
)  # fmt: skip
def test_closed_forms(algorithm: str, op: str, group: tuple[int, ...], expected: float) -> None:
    assert cost(algorithm, op, group, S) == pytest.approx(START + expected, rel=1e-12)


def test_a_shift_is_one_message_of_each_at_once() -> None:
    assert cost("ring", Op.SHIFT, (0, 1, 2), S) == pytest.approx(START + FAST + S / 100e9)
    assert cost("ring", Op.SHIFT_BACK, (3, 4, 5), S) == pytest.approx(START + SLOW + S / 10e9)
    # two of the ring's messages leave by the same card
    shared = cost("ring", Op.SHIFT, (0, 4, 1, 5), S, nics=1)
    assert shared == pytest.approx(START + SLOW + 2 * S / 10e9)


def test_cards_are_those_of_the_members() -> None:
    for group, cards in (((0, 1, 4, 5), 1), ((0, 2, 4, 6), 2)):
        seconds = cost("ring", Op.ALL_REDUCE, group, S, nics=2)
        steps = 2 * (4 - 2) * FAST + 2 * SLOW
        assert seconds == pytest.approx(START + steps + 1.5 * S / (cards * 10e9))


def test_copies_and_starts() -> None:
    library = replace(LIBRARY, copy_bandwidth=1e9)
    slow = CommunicationCosts(topology(), library, "ring")
    for op, copies in ((Op.ALL_REDUCE, 1.0), (Op.ALL_GATHER, 0.5)):
        extra = slow.cost(op, ALL, S).seconds - cost("ring", op, ALL, S)
        assert extra == pytest.approx(copies * S / 1e9)
    assert CommunicationCosts(topology(), LIBRARY).cost(Op.ALL_REDUCE, (3,), S).seconds == 0


def test_protocols_are_chosen_by_size() -> None:
    link = Link(100e9, {"LL": Protocol(1e-6, 0.1), "Simple": Protocol(1e-5, 1.0)})
    both = CommunicationCosts(
        replace(topology(1), island=link), replace(LIBRARY, algorithms=("ring",))
    )
    assert both.cost(Op.ALL_REDUCE, (0, 1), 1000).protocol == "LL"
    assert both.cost(Op.ALL_REDUCE, (0, 1), 1e9).protocol == "Simple"
    assert both.message_seconds(0, 1, 1000) == pytest.approx(START + 1e-6 + 1000 / 10e9)


@pytest.mark.parametrize(
    ("algorithm", "group", "reason"),
    [
        ("halving-doubling", (0, 1, 2), "power of two of ranks, not 3"),
        ("halving-doubling", (0, 1, 2, 4), "equally many ranks on every node"),
        ("hierarchical", (0, 1, 4), "equally many ranks on every node"),
        ("in-network", (0, 4, 8), "at least 2 ranks on one island"),
    ],
)
def test_what_does_not_apply_is_refused(algorithm: str, group, reason: str) -> None:
    with pytest.raises(ExperimentError, match=reason) as error:
        cost(algorithm, Op.ALL_REDUCE, group, S)
    assert str(error.value).startswith(f"cluster.algorithm = '{algorithm}': ALL_REDUCE of ranks 0")
    auto = CommunicationCosts(topology(), LIBRARY).cost(Op.ALL_REDUCE, group, S)
    assert auto.algorithm != algorithm


def test_a_forced_algorithm_is_used_for_what_it_is_for() -> None:
    plan = ["parallel.pipeline=1", "parallel.data=4", "cluster.preset=dgx-h100"]
    times = {
        name: predict(load(None, [*plan, f"cluster.algorithm={name}"])).iteration_time_s
        for name in ("auto", "ring", "tree", "hierarchical", "pairwise")
    }
    assert times["auto"] == times["pairwise"] <= min(times.values())
    assert times["tree"] > times["ring"]
    with pytest.raises(ExperimentError, match="'in-network': cluster laptop has no"):
        predict(load(None, ["cluster.preset=laptop", "cluster.algorithm=in-network"]))


groups = st.sets(st.integers(0, 15), min_size=2, max_size=16).map(lambda g: tuple(sorted(g)))
operations = st.sampled_from([Op.ALL_REDUCE, Op.ALL_GATHER, Op.REDUCE_SCATTER, Op.ALL_TO_ALL])


@settings(max_examples=30)
@given(
    groups, operations, st.floats(0, 1e10), st.sampled_from(["dgx-v100", "a100-pcie", "dgx-h100"])
)
def test_the_choice_is_the_fastest_and_grows_with_bytes(group, op, nbytes, preset) -> None:
    cluster = load_preset(preset).resized(nodes=2)
    every = replace(cluster.library, algorithms=tuple(OPERATIONS))
    costs = CommunicationCosts(cluster.topology, every)
    chosen = costs.cost(op, group, nbytes)
    extent = cluster.communication.extent(group)
    for name in OPERATIONS:
        if op in OPERATIONS[name] and not obstacle(name, extent, every):
            alone = CommunicationCosts(cluster.topology, every, name).cost(op, group, nbytes)
            assert chosen.seconds <= alone.seconds
    assert chosen.seconds <= costs.cost(op, group, nbytes * 1.1 + 1).seconds


@given(groups, operations, st.sampled_from(sorted(OPERATIONS)))
def test_no_link_carries_more_than_it_can_and_as_much_comes_as_goes(group, op, name) -> None:
    found = CommunicationCosts(topology(), LIBRARY, name)
    if op not in OPERATIONS[name] or obstacle(name, found.extent(group), LIBRARY):
        return
    seconds = found.cost(op, group, S).seconds
    traffic = found.traffic(op, group, S)
    capacities = found.topology.capacities(group)
    for resource, nbytes in traffic.items():
        assert nbytes / seconds <= capacities[resource.link] * (1 + 1e-9)
        back = Direction.IN if resource.direction is Direction.OUT else Direction.OUT
        assert traffic[resource.going(back)] == nbytes
    out = sum(
        nbytes
        for resource, nbytes in traffic.items()
        if resource.kind is ResourceKind.ISLAND and resource.direction is Direction.OUT
    )
    if len({rank // 4 for rank in group}) == 1 and name in ("ring", "halving-doubling", "pairwise"):
        halves = 2 if op == Op.ALL_REDUCE else 1
        assert out == pytest.approx(halves * (len(group) - 1) * S)  # all parts to all but one


@pytest.mark.parametrize("nodes", [2, 3, 8])
def test_latency_of_trees_grows_with_the_logarithm(nodes: int) -> None:
    group = tuple(range(0, 4 * nodes, 4))
    expected = START + 2 * SLOW * (-(-log2(nodes) // 1))
    assert cost("tree", Op.ALL_REDUCE, group, 0, nodes=nodes) == pytest.approx(expected)


def test_an_oversubscribed_tier_is_the_bottleneck_of_an_all_to_all() -> None:
    tiers = (Tier(2, 4.0),)
    plain, slow = (cost("pairwise", Op.ALL_TO_ALL, ALL, S, tiers=t) for t in ((), tiers))
    # of two nodes, 8 ranks send half of their bytes through 2·40/4 GB/s
    assert slow - plain == pytest.approx(8 * 0.5 * S / 20e9 - 4 * 0.75 * S / 40e9)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_reaches_no_more_than_its_links(name: str) -> None:
    cluster = load_preset(name)
    group = tuple(range(cluster.devices_per_node))
    if len(group) == 1:  # nothing joins devices of a node
        return
    cost = cluster.communication.cost(Op.ALL_GATHER, group, 1e10)
    extent = cluster.communication.extent(group)
    link = cluster.topology.link(
        PORT if extent.members[PORT + 1] == extent.members[NODE] else NODE - 1
    )
    assert link
    rings = 6 if cluster.topology.mesh else 1
    moved = (len(group) - 1) / len(group) * 1e10
    assert 0.5 < moved / cost.seconds / (rings * link.bandwidth) <= 1


def over_tcp(library: Library, latency_s: float, speed: float = 1e9) -> CommunicationCosts:
    """Nodes of one device with cards of 1 GB/s; connections of `speed` and a window of 1 MB."""
    node = Node(("gpu",), nics=1, nic_bandwidth=1e9)
    ways = {"TCP": Protocol(latency_s, 1.0)}
    network = Link(0.0, ways, Connection(speed, 1e6))
    return CommunicationCosts(Topology(Nodes(((node, 4),)), network=network), library)


@pytest.mark.parametrize(("connections", "expected"), [(1, 1.5e9 / 0.2e9), (4, 1.5e9 / 0.8e9)])
def test_a_rank_sends_as_fast_as_its_connections(connections: int, expected: float) -> None:
    costs = over_tcp(Library(connections=connections), 0.0, speed=0.2e9)
    assert costs.cost(Op.ALL_REDUCE, (0, 1, 2, 3), 1e9).seconds == pytest.approx(expected)
    assert costs.message_seconds(0, 1, 1.5e9) == pytest.approx(expected)
    assert over_tcp(Library(connections=9), 0.0, 0.2e9).message_seconds(0, 1, 1e9) == 1.0


def test_a_message_begins_slowly_and_then_sends_a_window_a_round_trip() -> None:
    link = over_tcp(Library(), 5e-3).links[NODE]
    assert link and link.connection
    start = link.connection.start_s(5e-3, 1e8, 1e8)
    assert start == pytest.approx((log2(1e6 / 14600) - 1) * 10e-3)
    assert over_tcp(Library(), 5e-3).message_seconds(0, 1, 1e8) == pytest.approx(5e-3 + 1.0 + start)


def test_a_ring_in_pieces_waits_a_round_trip_for_every_two() -> None:
    """512 MiB in 512 pieces, each sent three times in either half."""
    library = Library(algorithms=("piecewise-ring", "pairwise"), connections=99, piece_s=2e-3)
    size, group = 512 * 2**20, (0, 1, 2, 3)
    pieces, bytes_s = 2 * 3 * 128, 1.5 * size / 1e9
    slow = over_tcp(library, 5e-3).cost(Op.ALL_REDUCE, group, size).seconds
    assert slow == pytest.approx((bytes_s + pieces * 12e-3) / 2)
    near = over_tcp(library, 0.0).cost(Op.ALL_REDUCE, group, size).seconds
    assert near == pytest.approx((bytes_s + pieces * 2e-3) / 2)
    at_once = replace(library, piece_s=0.0)
    assert over_tcp(at_once, 0.0).cost(Op.ALL_REDUCE, group, size).seconds == pytest.approx(bytes_s)
    halves = [
        over_tcp(library, 5e-3).cost(op, group, size).seconds
        for op in (Op.REDUCE_SCATTER, Op.ALL_GATHER)
    ]
    assert halves == pytest.approx([slow / 2, max(bytes_s / 2, (bytes_s / 2 + 6 * 12e-3) / 2)])


PUBLISHED = [
    ("gloo", 1, 5, 0.959),
    ("gloo", 5, 2, 2.989),
    ("gloo", 10, 1, 5.909),
    ("nccl", 1, 5, 0.655),
    ("nccl", 5, 2, 1.650),
    ("nccl", 10, 1, 3.298),
]
"""Backend, ms, Gbit/s, seconds of 256 MiB on four nodes (`tests/benchmarks/networks.py`)."""


@pytest.mark.parametrize(("backend", "ms", "gbit", "seconds"), PUBLISHED)
def test_published_all_reduces_over_shaped_networks(
    backend: str, ms: float, gbit: float, seconds: float
) -> None:
    plan = ["preset=aws-p3-2xlarge", f"node_latency_us={ms * 1e3}", f"node_bandwidth_gbit={gbit}"]
    run = [f"backend={backend}", "device=cuda"]
    cluster = resolve(load(None, ["model=mlp", "pipeline=1", "data=4", *plan, *run]))
    cost = cluster.communication.cost(Op.ALL_REDUCE, (0, 1, 2, 3), 256 * 2**20)
    assert cost.algorithm == {"gloo": "piecewise-ring", "nccl": "ring"}[backend]
    assert cost.seconds == pytest.approx(seconds, rel=0.1)

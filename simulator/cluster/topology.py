"""Who is joined to whom by what, and who shares it.

Ranks may share a device, devices form islands (NVLink), islands share PCIe switches, those a
node, nodes a leaf switch, and so on. A *unit* of level 0 is a rank, of 1 a device, of 2 an
island, of 3 what is behind one PCIe switch, of 4 a node, of 5 what is behind a leaf switch.
What leaves a unit passes its boundary: the memory of the device, the port into the island, the
PCIe lanes of its devices, the uplink of the PCIe switch, network cards, and the uplinks of a
switch. Everything is in bytes/s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from simulator.cluster.nvlink import Mesh, ring_count, slowest_pair

MEMORY, PORT, LANE, BRIDGE, NODE = range(5)
"""Levels, named by the boundary of their units; those of switch tiers follow."""


@dataclass(frozen=True)
class Protocol:
    """Seconds a step, and the share of a link's bandwidth that is reached."""

    latency_s: float
    efficiency: float


@dataclass(frozen=True)
class Link:
    """A connection of one device, bytes/s each way, and the ways to use it."""

    bandwidth: float
    protocols: dict[str, Protocol]

    @property
    def latency_s(self) -> float:
        """Of the quickest protocol."""
        return min(protocol.latency_s for protocol in self.protocols.values())

    @property
    def efficiency(self) -> float:
        """Of the protocol that reaches most."""
        return max(protocol.efficiency for protocol in self.protocols.values())

    @property
    def speed(self) -> float:
        """Bytes/s that are reached."""
        return self.bandwidth * self.efficiency


@dataclass(frozen=True)
class Node:
    """Kinds of its devices in order, and how they share; `nic_bandwidth` is of one card.

    A device uses the card nearest to it. With more cards than devices it has several.
    """

    devices: tuple[str, ...]
    per_island: int = 1
    per_switch: int = 1
    nics: int = 1
    nic_bandwidth: float = 0.0

    @property
    def bandwidth(self) -> float:
        """Of all its network cards."""
        return self.nics * self.nic_bandwidth

    @property
    def ports(self) -> int:
        """Network cards that differ to its devices."""
        return min(self.nics, len(self.devices))


@dataclass(frozen=True)
class Tier:
    """Switches over so many nodes; `oversubscription`: bandwidth below ÷ of the uplinks."""

    nodes_per_switch: int
    oversubscription: float


@dataclass(frozen=True)
class Extent:
    """How a group of ranks lies in a topology.

    Attributes:
        size: ranks.
        counts: per level, units that have members; a last 1 for everything.
        members: per level, the most members that a unit has.
        even: units of one level have equally many members.
        load: seconds that a byte across the boundary of every unit of a level costs a
            resource at full bandwidth; one row per resource (equal ones once), one column
            per level.
    """

    size: int
    counts: tuple[int, ...]
    members: tuple[int, ...]
    even: bool
    load: np.ndarray

    def fanout(self, level: int) -> int:
        """Units of `level` in one of the next."""
        return -(-self.counts[level] // self.counts[level + 1])


@dataclass(frozen=True)
class Topology:
    """All nodes and what joins them. Ranks are placed in order.

    Attributes:
        per_device: ranks that share a device.
        memory: of a device, through which they talk; None: they share none.
    """

    nodes: tuple[Node, ...]
    island: Link | None = None
    mesh: Mesh | None = None
    pcie: Link | None = None
    network: Link | None = None
    tiers: tuple[Tier, ...] = ()
    per_device: int = 1
    memory: Link | None = None

    @cached_property
    def _first(self) -> list[int]:
        """Of every node the first device, and the number of all."""
        return [0, *accumulate(len(node.devices) for node in self.nodes)]

    @property
    def num_devices(self) -> int:
        return self._first[-1]

    @property
    def num_ranks(self) -> int:
        """That find a place."""
        return self.num_devices * self.per_device

    @property
    def num_levels(self) -> int:
        return NODE + 1 + len(self.tiers)

    def node(self, rank: int) -> int:
        """Index of the node of `rank`.

        Raises:
            ValueError: there are fewer devices.
        """
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"rank {rank} is out of bounds: there are {self.num_ranks}")
        return bisect_right(self._first, self.device(rank)) - 1

    def device(self, rank: int) -> int:
        """Number of its device."""
        return rank // self.per_device

    def kind(self, rank: int) -> str:
        """Of its device."""
        node = self.node(rank)
        return self.nodes[node].devices[self.device(rank) - self._first[node]]

    def units(self, rank: int) -> tuple[int, ...]:
        """Of every level the unit that `rank` is in: a number that no other unit has."""
        number = self.node(rank)
        node, first = self.nodes[number], self._first[number]
        device = self.device(rank)
        place = device - first
        island = first + place - place % node.per_island
        switch = first + place - place % max(node.per_switch, node.per_island)
        above = [number // tier.nodes_per_switch for tier in self.tiers]
        return (rank, device, island, switch, number, *above)

    def places(self, rank: int) -> tuple[int, ...]:
        """What tells `rank` from others but itself: its units, and its network card."""
        number = self.node(rank)
        node, place = self.nodes[number], self.device(rank) - self._first[number]
        card = self._first[number] + place * node.ports // len(node.devices)
        return (*self.units(rank)[LANE:], card)

    def boundary(self, rank: int, level: int) -> list[tuple[str, float]]:
        """(resource, bytes/s) that `rank` uses to leave its unit of `level`."""
        number = self.node(rank)
        device = self.device(rank)
        node, place = self.nodes[number], device - self._first[number]
        lane = [(f"pcie:{device}", self.pcie.bandwidth)] if self.pcie else []
        if level == MEMORY:
            return [(f"memory:{device}", self.memory.bandwidth)] if self.memory else []
        if level == PORT:
            assert self.island
            links = sum(self.mesh[place % node.per_island]) if self.mesh else 1
            return [(f"island:{device}", links * self.island.bandwidth)]
        if level == LANE:
            return lane
        if level == BRIDGE:
            if node.per_switch < max(node.per_island, 2):
                return lane  # every device has a root port of its own
            assert self.pcie
            return [(f"bridge:{self.units(rank)[BRIDGE]}", self.pcie.bandwidth)]
        if level == NODE:
            card = place * node.ports // len(node.devices)
            return [*lane, (f"nic:{number}.{card}", node.bandwidth / node.ports)]
        tier = self.tiers[level - NODE - 1]
        leaf = number // tier.nodes_per_switch
        up = tier.nodes_per_switch * node.bandwidth / tier.oversubscription
        return [(f"uplink:{level - NODE}.{leaf}", up)]

    def link(self, level: int) -> Link | None:
        """What joins the units of `level`."""
        if level == MEMORY:
            return self.memory
        if level == PORT:
            return self.island
        return self.pcie if level in (LANE, BRIDGE) else self.network

    def path(self, source: int, target: int) -> tuple[int, list[tuple[str, float]]]:
        """Of a message: the level of its link, and the resources, with bytes/s, at each end.

        Devices of an island that no link joins directly use PCIe.
        """
        mine, theirs = self.units(source), self.units(target)
        level = max((at for at in range(self.num_levels) if mine[at] != theirs[at]), default=MEMORY)
        if level == PORT and self.mesh and self.island:
            size = self.nodes[mine[NODE]].per_island
            place, other = (units[PORT] - mine[LANE] for units in (mine, theirs))
            assert max(place, other) < size
            links = self.mesh[place][other]
            if links:
                speed = links * self.island.bandwidth
                ends = (f"out:island:{mine[PORT]}", f"in:island:{theirs[PORT]}")
                return PORT, [(end, speed) for end in ends]
            level = LANE
        levels = [level] if level < BRIDGE else [LANE, BRIDGE]
        if level >= NODE:
            levels = list(range(NODE, level + 1))
        used = {
            f"{way}:{name}": speed
            for way, rank in (("out", source), ("in", target))
            for at in levels
            for name, speed in self.boundary(rank, at)
        }
        return level, list(used.items())

    def shares(self, group: tuple[int, ...]) -> dict[str, tuple[float, list[float]]]:
        """Of every resource that `group` uses, in both ways: its bytes/s and, per level, which
        share it takes of the bytes that leave a unit. Members of a unit have equal shares.
        """
        units = [self.units(rank) for rank in group]
        found: dict[str, tuple[float, list[float]]] = {}
        for level in range(self.num_levels):
            members = Counter(unit[level] for unit in units)
            parents = {unit[level]: self._parent(unit, level) for unit in units}
            siblings = Counter(parents.values())
            for rank, unit in zip(group, units, strict=True):
                if siblings[parents[unit[level]]] == 1:
                    continue  # nobody to talk to outside this unit
                for name, speed in self.boundary(rank, level):
                    _, row = found.setdefault(name, (speed, [0.0] * self.num_levels))
                    row[level] += 1 / members[unit[level]]
        return found

    def _parent(self, unit: tuple[int, ...], level: int) -> int:
        return unit[level + 1] if level + 1 < self.num_levels else 0

    def capacity(self, resource: str) -> float:
        """Bytes/s that the best protocol reaches of a resource, named as in `boundary`."""
        return self._capacities[resource]

    @cached_property
    def _capacities(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for rank in range(0, self.num_ranks, self.per_device):  # one of each device
            for level in range(self.num_levels):
                link = self.link(level)
                if link is not None:
                    for name, bandwidth in self.boundary(rank, level):
                        found[name] = max(found.get(name, 0.0), bandwidth * link.efficiency)
        return found

    def extent(self, group: tuple[int, ...], pattern: str = "ring") -> Extent:
        """How `group` lies; `pattern` (ring, tree or pairs) matters in a mesh only."""
        units = [self.units(rank) for rank in group]
        counts, members, even = [], [], True
        for level in range(self.num_levels):
            sizes = Counter(unit[level] for unit in units)
            counts.append(len(sizes))
            members.append(max(sizes.values()))
            even = even and len({*sizes.values()}) == 1
        rows = {tuple(share / speed for share in row) for speed, row in self.shares(group).values()}
        load = np.array(sorted(rows)).reshape(-1, self.num_levels)
        if self.mesh and self.island and load.any():
            load[:, PORT] = np.where(load[:, PORT] > 0, self._mesh_seconds(units, pattern), 0.0)
        return Extent(len(group), (*counts, 1), tuple(members), even, load)

    def _mesh_seconds(self, units: list[tuple[int, ...]], pattern: str) -> float:
        """Of a byte out of one device, in the slowest island."""
        assert self.mesh and self.island
        fallback = self.pcie.bandwidth if self.pcie else 0.0
        slowest = 0.0
        for island in sorted({unit[LANE] for unit in units}):
            here = {unit[PORT] - island for unit in units if unit[LANE] == island}
            places = tuple(sorted(here))
            if len(places) == 1:
                continue
            if pattern == "pairs":
                speed = slowest_pair(self.mesh, places, self.island.bandwidth, fallback)
            elif rings := ring_count(self.mesh, places):
                speed = rings * self.island.bandwidth
            else:  # a chain, up and down; what goes round in a ring takes PCIe
                speed = 2 * self.island.bandwidth if pattern == "tree" else fallback
            slowest = max(slowest, 1 / speed)
        return slowest

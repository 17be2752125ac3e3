"""The links that join the ranks of a cluster, and the ranks that share a link.

Ranks may share a device, devices form islands (NVLink), islands share PCIe switches, those a
node, nodes a leaf switch, and so on. A *unit* of level 0 is a rank, of 1 a device, of 2 an
island, of 3 what is behind one PCIe switch, of 4 a node, of 5 what is behind a leaf switch.
What leaves a unit passes its boundary: the memory of the device, the port into the island, the
PCIe lanes of its devices, the uplink of the PCIe switch, network cards, and the uplinks of a
switch. Every bandwidth is in bytes/s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.cluster.links import Link
from simulator.cluster.nodes import Nodes
from simulator.cluster.nvlink import LinkMatrix
from simulator.cluster.resource import Direction, Resource, ResourceKind

MEMORY, PORT, LANE, BRIDGE, NODE = range(5)
"""Levels, named by the boundary of their units; those of switch tiers follow."""


@dataclass(frozen=True)
class Tier:
    """One tier of switches between nodes.

    Attributes:
        nodes_per_switch: nodes below one switch.
        oversubscription: bandwidth of the nodes below ÷ bandwidth of the uplinks.
    """

    nodes_per_switch: int
    oversubscription: float


@dataclass(frozen=True)
class Topology:
    """All nodes and what joins them; ranks are placed in order.

    Attributes:
        mesh: direct links between the devices of an island; None: a switch joins them.
        per_device: ranks that share a device.
        memory: memory of a device, through which its ranks talk; None: ranks share no device.
    """

    nodes: Nodes
    island: Link | None = None
    mesh: LinkMatrix | None = None
    pcie: Link | None = None
    network: Link | None = None
    tiers: tuple[Tier, ...] = ()
    per_device: int = 1
    memory: Link | None = None

    @property
    def num_devices(self) -> int:
        """The number of devices of all nodes."""
        return self.nodes.num_devices

    @property
    def num_ranks(self) -> int:
        """The number of ranks that find a place."""
        return self.num_devices * self.per_device

    @property
    def num_levels(self) -> int:
        """The number of levels that have boundaries."""
        return NODE + 1 + len(self.tiers)

    def locate(self, rank: int) -> tuple[int, int]:
        """Return the number of the node that `rank` is in, and the position of its device there.

        Raises:
            ValueError: there are fewer devices.
        """
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"rank {rank} is out of bounds: there are {self.num_ranks}")
        return self.nodes.locate(self.device(rank))

    def node(self, rank: int) -> int:
        """Return the number of the node that `rank` is in.

        Raises:
            ValueError: there are fewer devices.
        """
        return self.locate(rank)[0]

    def device(self, rank: int) -> int:
        """Return the number of the device that `rank` is on, counted over all nodes."""
        return rank // self.per_device

    def kind(self, rank: int) -> str:
        """Return the kind of the device that `rank` is on."""
        number, position = self.locate(rank)
        return self.nodes[number].devices[position]

    def units(self, rank: int) -> tuple[int, ...]:
        """Return the unit of every level that `rank` is in, as a number that no other unit has."""
        number, position = self.locate(rank)
        node, device = self.nodes[number], self.device(rank)
        island = device - position % node.per_island
        switch = device - position % max(node.per_switch, node.per_island)
        above = [number // tier.nodes_per_switch for tier in self.tiers]
        return (rank, device, island, switch, number, *above)

    def boundary(self, rank: int, level: int) -> list[tuple[Resource, float]]:
        """Return the (resource, bytes/s) that `rank` uses to leave its unit of `level`."""
        number, position = self.locate(rank)
        node, device = self.nodes[number], self.device(rank)
        lane = [(Resource(ResourceKind.PCIE, device), self.pcie.bandwidth)] if self.pcie else []
        if level == MEMORY:
            if self.memory is None:
                return []
            return [(Resource(ResourceKind.MEMORY, device), self.memory.bandwidth)]
        if level == PORT:
            assert self.island
            links = sum(self.mesh[position % node.per_island]) if self.mesh else 1
            return [(Resource(ResourceKind.ISLAND, device), links * self.island.bandwidth)]
        if level == LANE:
            return lane
        if level == BRIDGE:
            if node.per_switch < max(node.per_island, 2):
                return lane  # every device has a root port of its own
            assert self.pcie
            switch = self.units(rank)[BRIDGE]
            return [(Resource(ResourceKind.BRIDGE, switch), self.pcie.bandwidth)]
        if level == NODE:
            card = Resource(ResourceKind.NIC, number, node.card(position))
            return [*lane, (card, node.bandwidth / node.ports)]
        tier = self.tiers[level - NODE - 1]
        leaf = number // tier.nodes_per_switch
        up = tier.nodes_per_switch * node.bandwidth / tier.oversubscription
        return [(Resource(ResourceKind.UPLINK, level - NODE, leaf), up)]

    def resources(self, places: Iterable[tuple[int, int, int]]) -> list[Resource]:
        """Return resources: of a rank, at a level, which of those of `boundary`."""
        found = []
        for rank, level, number in places:
            listed = self.boundary(rank, level)
            found.append(listed[min(number, len(listed) - 1)][0])
        return found

    def link(self, level: int) -> Link | None:
        """Return the link that joins the units of `level`; None: nothing does."""
        if level == MEMORY:
            return self.memory
        if level == PORT:
            return self.island
        return self.pcie if level in (LANE, BRIDGE) else self.network

    def path(self, source: int, target: int) -> tuple[int, list[tuple[Resource, float]]]:
        """Return the level of a message's link, and the resources, with bytes/s, at each end.

        Devices of an island that no link joins directly use PCIe.
        """
        mine, theirs = self.units(source), self.units(target)
        level = max((at for at in range(self.num_levels) if mine[at] != theirs[at]), default=MEMORY)
        if level == PORT and self.mesh and self.island:
            position, other = (units[PORT] - mine[LANE] for units in (mine, theirs))
            links = self.mesh[position][other]
            if links:
                speed = links * self.island.bandwidth
                out, into = (Resource(ResourceKind.ISLAND, u[PORT]) for u in (mine, theirs))
                ends = (out.going(Direction.OUT), into.going(Direction.IN))
                return PORT, [(end, speed) for end in ends]
            level = LANE
        levels = [level] if level < BRIDGE else [LANE, BRIDGE]
        if level >= NODE:
            levels = list(range(NODE, level + 1))
        used = {
            resource.going(direction): speed
            for direction, rank in ((Direction.OUT, source), (Direction.IN, target))
            for at in levels
            for resource, speed in self.boundary(rank, at)
        }
        return level, list(used.items())

    def capacities(self, ranks: Iterable[int]) -> dict[Resource, float]:
        """Return the bytes/s, each way, that the best protocol reaches of every link of `ranks`.

        They are those of `boundary`, without a direction.
        """
        found: dict[Resource, float] = {}
        for rank in {self.device(rank): rank for rank in ranks}.values():  # one of each device
            for level in range(self.num_levels):
                link = self.link(level)
                if link is not None:
                    for resource, bandwidth in self.boundary(rank, level):
                        reached = bandwidth * link.efficiency
                        found[resource] = max(found.get(resource, 0.0), reached)
        return found

"""Placement of many ranks in a topology, as arrays: for thousands, loops take too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.cluster.nodes import Node
from simulator.cluster.resource import ResourceKind
from simulator.cluster.topology import BRIDGE, LANE, MEMORY, NODE, PORT, Topology

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Family(NamedTuple):
    """Resources of one kind that ranks use to leave their units.

    Attributes:
        kind: what they are.
        level: of uplinks, the level of the units that they lead out of; -1: of all levels.
    """

    kind: ResourceKind
    level: int = -1


LANES = Family(ResourceKind.PCIE)
MEMORIES = Family(ResourceKind.MEMORY)
ISLANDS = Family(ResourceKind.ISLAND)
BRIDGES = Family(ResourceKind.BRIDGE)
CARDS = Family(ResourceKind.NIC)


class Boundary(NamedTuple):
    """One of the resources that ranks use to leave their units, as `Topology.boundary` lists them.

    Attributes:
        family: what it is; equal numbers of one family are one resource.
        numbers: of each rank, the number of its resource; -1: it uses none of this family.
        speeds: bytes/s of each.
    """

    family: Family
    numbers: Integers
    speeds: Floats


class Shares(NamedTuple):
    """The resources that a group uses, one row each.

    Attributes:
        names: as in `Topology.boundary`, which takes a rank and a level: the two, and which of
            those that it returns.
        speeds: bytes/s.
        rows: how much of the bytes that leave a unit of each level pass it, in each direction.
    """

    names: Integers
    speeds: Floats
    rows: Floats


class Placement:
    """The places of ranks in a topology.

    Attributes:
        ranks: which ranks, ascending.
        units: of every level a row: the unit that each rank is in (see `Topology.units`).
        cards: the network card of each, as a number that no other card has.
        kinds: the device and its node, as numbers that are equal for equal ones.
    """

    def __init__(self, topology: Topology, ranks: Sequence[int] | Integers) -> None:
        self.topology = topology
        self.ranks = np.sort(np.asarray(ranks, dtype=np.int64))
        runs = [node for node, _ in topology.nodes.runs]
        firsts = np.array([first for first, _ in topology.nodes.starts])
        numbers = np.array([number for _, number in topology.nodes.starts])
        devices = self.ranks // topology.per_device
        self._run = np.searchsorted(firsts, devices, side="right") - 1
        self._nodes = runs
        many = self._of_node(lambda node: len(node.devices))
        number, position = np.divmod(devices - firsts[self._run], many)
        number += numbers[self._run]
        self._position = position
        self._island = self._of_node(lambda node: node.per_island)
        self._switch = np.maximum(self._of_node(lambda node: node.per_switch), self._island)
        self.units = np.stack(
            [
                self.ranks,
                devices,
                devices - position % self._island,
                devices - position % self._switch,
                number,
                *(number // tier.nodes_per_switch for tier in topology.tiers),
            ]
        )
        ports = self._of_node(lambda node: node.ports)
        self.cards = devices - position + position * ports // many
        distinct = [topology.nodes.distinct.index(node) for node in runs]
        names = sorted({kind for node in runs for kind in node.devices})
        width = max(len(node.devices) for node in runs)
        table = np.zeros((len(runs), width), dtype=np.int64)
        for row, node in enumerate(runs):
            table[row, : len(node.devices)] = [names.index(kind) for kind in node.devices]
        self.kinds = table[self._run, position] + len(names) * np.array(distinct)[self._run]

    def boundary(self, level: int) -> list[Boundary]:
        """Return the resources that the ranks use to leave their units of `level`."""
        topology, devices, count = self.topology, self.units[PORT], len(self.ranks)
        lane = []
        if topology.pcie:
            lane = [Boundary(LANES, devices, np.full(count, topology.pcie.bandwidth))]
        if level == MEMORY:
            if not topology.memory:
                return []
            return [Boundary(MEMORIES, devices, np.full(count, topology.memory.bandwidth))]
        if level == PORT:
            if not topology.island:
                return []
            return [
                Boundary(
                    ISLANDS, devices, topology.island.bandwidth * self.links().astype(np.float64)
                )
            ]
        if level == LANE:
            return lane
        if level == BRIDGE:
            if not topology.pcie:
                return []
            alone = self._of_node(lambda node: node.per_switch < max(node.per_island, 2)) > 0
            speed = np.full(count, topology.pcie.bandwidth)
            return [
                Boundary(LANES, np.where(alone, devices, -1), speed),
                Boundary(BRIDGES, np.where(alone, -1, self.units[BRIDGE]), speed),
            ]
        whole = self._of_node(lambda node: node.bandwidth)
        if level == NODE:
            ports = self._of_node(lambda node: node.ports)
            return [*lane, Boundary(CARDS, self.cards, whole / ports)]
        tier = topology.tiers[level - NODE - 1]
        up = tier.nodes_per_switch * whole / tier.oversubscription
        return [Boundary(Family(ResourceKind.UPLINK, level), self.units[level], up)]

    def links(self) -> Integers:
        """Return the number of links that each device has in its island; 1: to a switch."""
        mesh = self.topology.mesh
        if mesh is None:
            return np.ones(len(self.ranks), dtype=np.int64)
        links: Integers = np.array([sum(row) for row in mesh])[self._position % self._island]
        return links

    def shares(self) -> Shares:
        """Return every resource that the ranks use if they are one group.

        Members of a unit have equal shares of what leaves it; nothing leaves a unit that all
        ranks of the unit above are in.
        """
        count, levels = len(self.ranks), self.topology.num_levels
        sizes = np.concatenate([together(self.units), np.full((1, count), count)])
        families: dict[Family, int] = {}
        found: list[tuple[Integers, Floats, Floats, Integers]] = []
        for level in range(levels):
            leaving = np.flatnonzero(sizes[level + 1] > sizes[level])
            for place, (family, numbers, speeds) in enumerate(self.boundary(level)):
                using = leaving[numbers[leaving] >= 0]
                code = families.setdefault(family, len(families))
                names = np.full((using.size, 3), (0, level, place))
                names[:, 0] = self.ranks[using]
                keys = numbers[using] + (code << 48)
                found.append((keys, 1 / sizes[level][using], speeds[using], names))
        keys, shares, speeds, names = map(np.concatenate, zip(*found, strict=True))
        levels_of = names[:, 1]
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        rows = [
            np.bincount(which[levels_of == level], shares[levels_of == level], first.size)
            for level in range(levels)
        ]
        return Shares(names[first], speeds[first], np.stack(rows, axis=1))

    def _of_node(self, figure: Callable[[Node], Any]) -> npt.NDArray[Any]:
        """Return a figure of the node that each rank is in."""
        return np.array([figure(node) for node in self._nodes])[self._run]


def together(units: Integers) -> Integers:
    """Return how many of the group of each rank are in its unit.

    Args:
        units: of shape (…, members): the unit of each member of a group, ascending.
    """
    begins = np.ones(units.shape, dtype=bool)
    begins[..., 1:] = units[..., 1:] != units[..., :-1]
    unit = begins.ravel().cumsum() - 1
    sizes: Integers = np.bincount(unit)[unit].reshape(units.shape)
    return sizes

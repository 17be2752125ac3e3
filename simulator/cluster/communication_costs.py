"""Costs of messages and collectives in one topology, by the fastest way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cluster.collective_algorithms import OPERATIONS, Way, obstacle, way_of
from simulator.cluster.extent import Extent, extent_of
from simulator.cluster.library import Library
from simulator.cluster.links import Link, Protocol
from simulator.cluster.placement import Floats, Placement
from simulator.cluster.resource import Direction, Resource
from simulator.cluster.topology import MEMORY, NODE, PORT, Topology
from simulator.experiment.section import ExperimentError
from simulator.program.operation_columns import Formula
from simulator.program.operations import Op


@dataclass(frozen=True)
class Cost:
    """The cost of one collective.

    Attributes:
        seconds: how long it takes alone.
        volumes: per level, bytes that leave a unit.
        algorithm: the algorithm that takes so long.
        protocol: the protocol that it uses.
    """

    seconds: float
    volumes: tuple[float, ...]
    algorithm: str
    protocol: str = ""


class CommunicationCosts:
    """Costs of messages and collectives in one topology.

    Args:
        topology: where the ranks are.
        library: what the communication library does.
        forced: the only algorithm for the operations that it is for.
    """

    def __init__(self, topology: Topology, library: Library, forced: str | None = None):
        self.topology, self.library, self.forced = topology, library, forced
        self.links = [topology.link(level) for level in range(topology.num_levels)]
        self.protocols = next((list(link.protocols) for link in self.links if link), [])
        self._extents: dict[tuple[tuple[int, ...], str], Extent] = {}
        self._costs: dict[tuple[Op, tuple[int, ...], float], Cost] = {}
        self._shares: dict[tuple[int, ...], tuple[list[Resource], Floats]] = {}

    def cost(self, op: Op, group: tuple[int, ...], nbytes: float) -> Cost:
        """Return the cost by the fastest algorithm, or by the one that is forced.

        Raises:
            ExperimentError: the one that is forced is not possible in this group.
        """
        key = (op, group, nbytes)
        if key not in self._costs:
            costs = self.candidates(op, group, nbytes)
            self._costs[key] = min(costs, key=lambda cost: (cost.seconds, cost.algorithm))
        return self._costs[key]

    def candidates(self, op: Op, group: tuple[int, ...], nbytes: float) -> list[Cost]:
        """Return the cost by every algorithm that may be chosen, with its fastest protocol."""
        if len(group) == 1:
            return [Cost(0.0, (), "none")]
        if op.row.cost is Formula.MESSAGE:
            seconds, protocol = self._messages(_pairs_of(op, group), nbytes)
            return [Cost(seconds, (), "shift", protocol)]
        extent = self.extent(group)
        names = self.library.algorithms
        if self.forced and op in OPERATIONS[self.forced]:
            names = (self.forced,)
            if reason := obstacle(self.forced, extent, self.library):
                raise ExperimentError(
                    f"cluster.algorithm = {self.forced!r}: {op} of ranks "
                    f"{group[0]} to {group[-1]}: {reason}; allowed: auto"
                )
        return [
            self._fastest(name, op, group, nbytes)
            for name in names
            if op in OPERATIONS[name] and not obstacle(name, extent, self.library)
        ]

    def message_seconds(self, source: int, target: int, nbytes: float) -> float:
        """Return the seconds that one message takes, both ranks being ready."""
        return self._messages([(source, target)], nbytes)[0]

    def traffic(self, op: Op, group: tuple[int, ...], nbytes: float) -> dict[Resource, float]:
        """Return the bytes that pass each link, in each direction.

        A SEND is a message from the first of `group` to the second.
        """
        found: dict[Resource, float] = {}
        if op.row.cost is Formula.MESSAGE:
            for source, target in _pairs_of(op, group):
                for way, _ in self.topology.path(source, target)[1]:
                    found[way] = found.get(way, 0.0) + nbytes
            return found
        volumes = self.cost(op, group, nbytes).volumes
        if group not in self._shares:
            shares = Placement(self.topology, group).shares()
            self._shares[group] = self.topology.resources(shares.names.tolist()), shares.rows
        links, rows = self._shares[group]
        for link, passing in zip(links, (rows @ np.array(volumes)).tolist(), strict=True):
            if passing:
                found[link.going(Direction.OUT)] = found[link.going(Direction.IN)] = passing
        return found

    def extent(self, group: tuple[int, ...], pattern: str = "ring") -> Extent:
        """Return how `group` lies, computed once (see `extent_of`)."""
        if self.topology.mesh is None:
            pattern = "ring"  # all are alike
        if (group, pattern) not in self._extents:
            self._extents[group, pattern] = extent_of(self.topology, group, pattern)
        return self._extents[group, pattern]

    def _messages(self, pairs: list[tuple[int, int]], nbytes: float) -> tuple[float, str]:
        """Return the seconds of messages that are sent at once, and their protocol."""
        load: dict[Resource, float] = {}
        level = MEMORY
        for source, target in pairs:
            farthest, path = self.topology.path(source, target)
            level = max(level, farthest)
            for way, bandwidth in path:
                load[way] = load.get(way, 0.0) + nbytes / bandwidth
        link = self.links[level]
        assert link
        busy = max(load.values())
        seconds, name = min(
            (self._message(link, protocol, busy / protocol.efficiency, nbytes), name)
            for name, protocol in link.protocols.items()
        )
        return self.library.start_s + seconds + nbytes / self.library.copy_bandwidth, name

    def _message(self, link: Link, protocol: Protocol, busy: float, nbytes: float) -> float:
        """Return the seconds of a message whose bytes take so long on the links."""
        if link.connection is None or not nbytes:
            return protocol.latency_s + busy
        latency, count = protocol.latency_s, self.library.connections
        seconds = max(busy, nbytes / (count * link.connection.speed(latency)))
        each = nbytes / count
        return latency + seconds + link.connection.start_s(latency, each / seconds, each)

    def _fastest(self, algorithm: str, op: Op, group: tuple[int, ...], nbytes: float) -> Cost:
        way = way_of(algorithm, op, self.extent(group), nbytes)
        extent = self.extent(group, way.pattern)
        seconds, name = min(
            (self._seconds(algorithm, way, extent, name), name) for name in self.protocols
        )
        seconds += way.copies * nbytes / self.library.copy_bandwidth
        return Cost(self.library.start_s + seconds, way.volumes, algorithm, name)

    def _seconds(self, algorithm: str, way: Way, extent: Extent, protocol: str) -> float:
        latency, farthest = 0.0, 0.0
        busy, of_connections = np.zeros(len(way.volumes)), np.zeros(len(way.volumes))
        for level, link in enumerate(self.links):
            if link is None or extent.counts[level] == extent.counts[level + 1]:
                continue
            with_: Protocol = link.protocols[protocol]
            if algorithm == "in-network" and level == PORT:
                assert self.library.in_network
                with_ = self.library.in_network
            latency += way.steps[level] * with_.latency_s
            farthest = max(farthest, with_.latency_s)
            busy[level] = way.volumes[level] / with_.efficiency
            if link.connection is not None:
                speed = link.connection.speed(with_.latency_s) * self.library.connections
                of_connections[level] = way.volumes[level] / (speed * self._streams(way, extent))
        each = extent.load * busy
        if way.phases:
            return latency + float(np.maximum(each.max(axis=0), of_connections).sum())
        on_links = float(each.sum(axis=1).max())
        seconds = max(on_links, float(of_connections.max()))
        if way.pieces:  # from a piece to the one after the next there is a round trip
            turns = way.pieces * (2 * farthest + self.library.piece_s)
            seconds = max(seconds, (on_links + turns) / 2)
        return latency + seconds

    def _streams(self, way: Way, extent: Extent) -> int:
        """Return between how many pairs of ranks at once the bytes go that leave a node."""
        if way.pattern == "pairs":
            return extent.members[NODE]
        return min(self.topology.nodes.first.nics, extent.members[NODE])


def _pairs_of(op: Op, group: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the (source, target) pairs of a message, or of those of a shift."""
    hop = op.row.hop
    if hop == 0:
        return [(group[0], group[1])]
    pairs = list(zip(group, (*group[abs(hop) :], *group[: abs(hop)]), strict=True))
    return pairs if hop > 0 else [(target, source) for source, target in pairs]

"""Collectives by algorithm, in closed form: steps, and bytes across every boundary.

Seconds are start + latency of the steps + bytes ÷ bandwidth of the slowest resource. Of an
algorithm's protocols and of all algorithms the fastest counts, as in the tuner of NCCL
(src/graph/tuning.cc) and of MPI libraries. Payloads are counted as nccl-tests does: bytes
of the larger side.

ring: Patarasuk & Yuan 2009, section 3. halving-doubling: Thakur, Rabenseifner & Gropp 2005,
section 4. tree: two complementary binary trees between nodes (Sanders, Speck & Träff 2009),
chains inside, as in NCCL 2.4. hierarchical: level by level (Cho et al. 2019, BlueConnect);
its all-to-all is Rajbhandari et al. 2022 (DeepSpeed-MoE), section 5. in-network: switches of
an island add up (Graham et al. 2016, SHARP; NVLS), trees between nodes. pairwise: Thakur et
al. 2005, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from simulator.cluster.topology import MEMORY, NODE, PORT, Extent, Protocol, Topology
from simulator.experiment.section import ExperimentError

SHIFTS = ("SHIFT", "SHIFT_BACK")
HALF = {"ALL_REDUCE": 2, "ALL_GATHER": 1, "REDUCE_SCATTER": 1}
"""How many halves, reduce-scatter and all-gather, an operation has."""


@dataclass(frozen=True)
class InNetwork(Protocol):
    """Of switches that add up; from how many devices of an island on."""

    devices: int


@dataclass(frozen=True)
class Library:
    """What the communication library does; see `simulator.cluster.file.CollectivesTable`."""

    start_s: float = 0.0
    copy_bandwidth: float = float("inf")
    algorithms: tuple[str, ...] = ("ring", "pairwise")
    in_network: InNetwork | None = None
    transfer_share: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Of one collective: seconds alone, bytes that leave a unit of each level, and how."""

    seconds: float
    volumes: tuple[float, ...]
    algorithm: str
    protocol: str = ""


@dataclass(frozen=True)
class _Way:
    """Per level: steps one after the other, and bytes out of every unit.

    `phases`: levels take turns; otherwise they are one pipeline. `copies`: how often every
    member puts its payload in place.
    """

    steps: tuple[float, ...]
    volumes: tuple[float, ...]
    phases: bool = False
    copies: float = 0.0
    pattern: str = "ring"


OPERATIONS = {
    "ring": tuple(HALF),
    "halving-doubling": tuple(HALF),
    "tree": ("ALL_REDUCE",),
    "hierarchical": (*HALF, "ALL_TO_ALL"),
    "in-network": ("ALL_REDUCE",),
    "pairwise": ("ALL_TO_ALL",),
}
"""Which operations an algorithm is for."""


def obstacle(algorithm: str, extent: Extent, library: Library) -> str:
    """Why `algorithm` is not possible in a group that lies so; empty: it is."""
    if algorithm in ("halving-doubling", "hierarchical", "in-network") and not extent.even:
        return "needs equally many ranks on every node and island"
    if algorithm == "halving-doubling" and extent.size & (extent.size - 1):
        return f"needs a power of two of ranks, not {extent.size}"
    if algorithm == "in-network":
        if library.in_network is None:
            return "needs switches that add up ([collectives.in_network])"
        if extent.members[PORT] > 1:
            return "needs a device for every rank"
        least = library.in_network.devices
        if extent.members[PORT + 1] < max(extent.members[NODE], least):
            return f"needs at least {least} ranks on one island of every node"
    return ""


def way_of(algorithm: str, op: str, extent: Extent, nbytes: float) -> _Way:
    """Steps and bytes of `algorithm`."""
    levels = range(len(extent.counts) - 1)
    if op == "ALL_TO_ALL":
        return _all_to_all(algorithm, extent, nbytes)
    n, counts, half = extent.size, extent.counts, HALF[op]
    if algorithm == "ring":
        around = half * (n - 1) / n * nbytes
        steps = tuple(float(half * (counts[at] - counts[at + 1])) for at in levels)
        return _Way(steps, (around,) * len(levels), copies=half / 2)
    if algorithm in ("tree", "in-network"):
        return _tree(algorithm == "in-network", extent, nbytes)
    fanouts = [extent.fanout(at) for at in levels]
    logarithmic = algorithm == "halving-doubling"
    steps = tuple(half * (log2(f) if logarithmic else float(f - 1)) for f in fanouts)
    return _Way(steps, tuple(half * (f - 1) / f * nbytes for f in fanouts), True, half / 2)


def _tree(switched: bool, extent: Extent, nbytes: float) -> _Way:
    """All bytes go up and down once; with two ends only, up and down are at the same time."""
    levels = range(len(extent.counts) - 1)
    volumes = [nbytes * (1 if extent.counts[at] == 2 else 2) for at in levels]
    steps = [
        2.0 * (ceil(log2(extent.fanout(at))) if at >= NODE else extent.fanout(at) - 1)
        for at in levels
    ]
    if switched:  # a device reads 1/n of the sum and writes it to all, and is read
        devices = extent.members[NODE]
        volumes[PORT], steps[PORT] = (devices + 1) / devices * nbytes, 1.0
    return _Way(tuple(steps), tuple(volumes), copies=float(not switched), pattern="tree")


def _all_to_all(algorithm: str, extent: Extent, nbytes: float) -> _Way:
    """Every rank has `nbytes`, equal parts of them for every rank of the group."""
    n, levels = extent.size, range(len(extent.counts) - 1)
    inside = [*extent.members, n]  # ranks in a unit
    if algorithm == "hierarchical":
        fanouts = [extent.fanout(at) for at in levels]
        volumes = tuple(inside[at] * (f - 1) / f * nbytes for at, f in enumerate(fanouts))
        return _Way(tuple(f - 1.0 for f in fanouts), volumes, phases=True, pattern="pairs")
    # what a unit sends to its siblings; network cards and uplinks carry all that leaves
    reach = [n if at >= NODE else inside[at + 1] for at in levels]
    volumes = tuple(inside[at] * (reach[at] - inside[at]) / n * nbytes for at in levels)
    steps = tuple(float(inside[at + 1] - inside[at]) for at in levels)
    return _Way(steps, volumes, pattern="pairs")


class Collectives:
    """Costs of messages and collectives in one topology.

    Args:
        forced: the only algorithm for the operations that it is for.
    """

    def __init__(self, topology: Topology, library: Library, forced: str | None = None):
        self.topology, self.library, self.forced = topology, library, forced
        self.links = [topology.link(level) for level in range(topology.num_levels)]
        self.protocols = next((list(link.protocols) for link in self.links if link), [])
        self._extents: dict[tuple[tuple[int, ...], str], Extent] = {}
        self._costs: dict[tuple[str, tuple[int, ...], float], Cost] = {}

    def cost(self, op: str, group: tuple[int, ...], nbytes: float) -> Cost:
        """Of the fastest algorithm, or of the one that is forced.

        Raises:
            ExperimentError: the one that is forced is not possible in this group.
        """
        key = (op, group, nbytes)
        if key not in self._costs:
            costs = self.candidates(op, group, nbytes)
            self._costs[key] = min(costs, key=lambda cost: (cost.seconds, cost.algorithm))
        return self._costs[key]

    def candidates(self, op: str, group: tuple[int, ...], nbytes: float) -> list[Cost]:
        """Of every algorithm that may be chosen, by its fastest protocol."""
        if len(group) == 1:
            return [Cost(0.0, (), "none")]
        if op in SHIFTS:
            seconds, protocol = self._messages(_ring_of(op, group), nbytes)
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
        return self._messages([(source, target)], nbytes)[0]

    def traffic(self, op: str, group: tuple[int, ...], nbytes: float) -> dict[str, float]:
        """Bytes that pass each resource, ``out:`` or ``in:`` and its name.

        `op` SEND is a message from the first of `group` to the second.
        """
        found: dict[str, float] = {}
        if op == "SEND" or op in SHIFTS:
            for source, target in [group] if op == "SEND" else _ring_of(op, group):
                for name, _ in self.topology.path(source, target)[1]:
                    found[name] = found.get(name, 0.0) + nbytes
            return found
        volumes = self.cost(op, group, nbytes).volumes
        for name, (_, row) in self.topology.shares(group).items():
            passing = sum(share * volume for share, volume in zip(row, volumes, strict=True))
            if passing:
                found[f"out:{name}"] = found[f"in:{name}"] = passing
        return found

    def extent(self, group: tuple[int, ...], pattern: str = "ring") -> Extent:
        if (group, pattern) not in self._extents:
            self._extents[group, pattern] = self.topology.extent(group, pattern)
        return self._extents[group, pattern]

    def _messages(self, pairs: list[tuple[int, int]], nbytes: float) -> tuple[float, str]:
        """Seconds of messages that are sent at once, and their protocol."""
        load: dict[str, float] = {}
        level = MEMORY
        for source, target in pairs:
            farthest, path = self.topology.path(source, target)
            level = max(level, farthest)
            for name, bandwidth in path:
                load[name] = load.get(name, 0.0) + nbytes / bandwidth
        link = self.links[level]
        assert link
        busy = max(load.values())
        seconds, name = min(
            (protocol.latency_s + busy / protocol.efficiency, name)
            for name, protocol in link.protocols.items()
        )
        return self.library.start_s + seconds + nbytes / self.library.copy_bandwidth, name

    def _fastest(self, algorithm: str, op: str, group: tuple[int, ...], nbytes: float) -> Cost:
        way = way_of(algorithm, op, self.extent(group), nbytes)
        extent = self.extent(group, way.pattern)
        seconds, name = min(
            (self._seconds(algorithm, way, extent, name), name) for name in self.protocols
        )
        seconds += way.copies * nbytes / self.library.copy_bandwidth
        return Cost(self.library.start_s + seconds, way.volumes, algorithm, name)

    def _seconds(self, algorithm: str, way: _Way, extent: Extent, protocol: str) -> float:
        latency, busy = 0.0, np.zeros(len(way.volumes))
        for level, link in enumerate(self.links):
            if link is None or extent.counts[level] == extent.counts[level + 1]:
                continue
            with_: Protocol | InNetwork = link.protocols[protocol]
            if algorithm == "in-network" and level == PORT:
                assert self.library.in_network
                with_ = self.library.in_network
            latency += way.steps[level] * with_.latency_s
            busy[level] = way.volumes[level] / with_.efficiency
        each = extent.load * busy
        return latency + float(each.max(axis=0).sum() if way.phases else each.sum(axis=1).max())


def _ring_of(op: str, group: tuple[int, ...]) -> list[tuple[int, int]]:
    """(source, target) of a shift."""
    pairs = list(zip(group, (*group[1:], group[0]), strict=True))
    return pairs if op == "SHIFT" else [(target, source) for source, target in pairs]


def ring_seconds(op: str, size: int, nbytes: float, latency_s: float, bandwidth: float) -> float:
    """An all-reduce takes 2(n-1)/n·bytes/bandwidth + 2(n-1)·latency; each of its halves,
    reduce-scatter and all-gather, and a pairwise all-to-all half of that (Patarasuk & Yuan
    2009; Thakur et al. 2005, section 3). A shift is one message of each rank, all at once.
    """
    if op in ("SHIFT", "SHIFT_BACK"):
        return latency_s + nbytes / bandwidth
    rounds = (2 if op == "ALL_REDUCE" else 1) * (size - 1)
    return rounds / size * nbytes / bandwidth + rounds * latency_s

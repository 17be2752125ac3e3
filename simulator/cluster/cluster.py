"""Machines: devices, links and shared resources, from a preset or a calibrated profile.

A cluster file is TOML with units in its key names; inside, everything is in seconds,
bytes, bytes/s and FLOP/s. A calibrated profile (JSON, `simulator.cluster.profile`) describes the
machine it was measured on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd

from simulator.cluster.collectives import Collectives, Library
from simulator.cluster.device import Device
from simulator.cluster.profile import Profile, Timing
from simulator.cluster.topology import Link, Node, Protocol, Topology
from simulator.experiment.section import ExperimentError


@dataclass(frozen=True)
class Cluster:
    """Nodes of devices, what joins them, and the library that moves bytes between them.

    Attributes:
        nodes: how many there are.
        kinds: devices by the name of their kind.
        cores: how many cores the ranks of one node share; None: they have devices.
        device_capacity: how many passes at once, of ranks that share a device, get as much
            done as that many alone.
        issue_s: host time to begin a compute instruction; queue_s: what a communication takes
            of it from the compute instruction behind it.
        wake_s: from the end of an instruction to the start of one on another stream.
        transfer_cores: what one rank's transfer occupies of the cores, unless the profile
            knows better.
    """

    name: str
    source: str
    topology: Topology
    kinds: dict[str, Device]
    library: Library = field(default_factory=Library)
    algorithm: str | None = None
    cores: float | None = None
    device_capacity: float = 1.0
    issue_s: float = 0.0
    queue_s: float = 0.0
    wake_s: float = 0.0
    transfer_cores: float = 0.0
    profile: Profile | None = None

    @cached_property
    def collectives(self) -> Collectives:
        return Collectives(self.topology, self.library, self.algorithm)

    @property
    def nodes(self) -> int:
        return len(self.topology.nodes)

    @property
    def devices_per_node(self) -> int:
        """Of the first node."""
        return len(self.topology.nodes[0].devices)

    @property
    def device(self) -> Device:
        """The first one."""
        return self.device_of(0)

    def device_of(self, rank: int) -> Device:
        return self.kinds[self.topology.kind(rank)]

    def node(self, rank: int) -> int:
        return self.topology.node(rank)

    def seat(self, rank: int) -> str:
        """The resource that its passes share with others: the cores of its host, or its device."""
        if self.cores is not None:
            return f"cores:{self.node(rank)}"
        return f"device:{self.topology.device(rank)}"

    @property
    def seat_capacity(self) -> float:
        """Passes at full speed, of the ranks that share it."""
        return self.device_capacity if self.cores is None else self.cores

    def peak_flops(self, dtype: str, world_size: int) -> float | None:
        """Of a rank's device, or its share of it, the mean over ranks; None: not known."""
        peaks = [self.device_of(rank).peak_flops.get(dtype) for rank in range(world_size)]
        known = [peak for peak in peaks if peak is not None]
        each = len(peaks) * self.topology.per_device
        return sum(known) / each if len(known) == len(peaks) else None

    def message(self, source: int, target: int, nbytes: int) -> Timing:
        """One message, both ranks ready; from the profile if it has any."""
        if self.profile and self.profile.messages:
            return self.profile.message(nbytes)
        return Timing.certain(self.collectives.message_seconds(source, target, nbytes))

    def collective(self, op: str, group: tuple[int, ...], nbytes: int) -> Timing:
        """From the profile if it has any; else from `simulator.cluster.collectives`."""
        known = self.profile.collective(op, len(group), nbytes) if self.profile else None
        return known or Timing.certain(self.collectives.cost(op, group, nbytes).seconds)

    def share_beside_passes(self, timing: Timing, size: int) -> tuple[float, float]:
        """What a transfer among `size` ranks does beside passes: how much each of them uses, at
        full speed, of what they share (the cores of a host, or a rank's device), and the
        weight with which it is given to them.

        With a profile both follow from what was measured while all ranks computed: how much
        longer the transfer took, and what passes lost. A transfer by itself runs at full speed,
        so it needs no more than there is, even if passes lose less by that.
        """
        profile, on_host = self.profile, self.cores is not None
        if profile is None or profile.transfer_loss is None or not timing.busy_s:
            return self.transfer_cores if on_host else self.library.transfer_share, 1.0
        capacity, passes = self.seat_capacity, profile.busy_ranks
        stretch = timing.busy_s / timing.mean_s
        level = min(1.0, capacity / passes) * (1.0 - profile.transfer_loss)
        needed = min(max(capacity - passes * level, 0.0) * stretch, capacity)
        level = min((capacity - needed / stretch) / passes, 1.0)
        together = size if on_host else min(size, self.topology.per_device)
        return needed / together, 1.0 / (level * stretch)

    @cached_property
    def wake_weight(self) -> float | None:
        """With which a wake-up gets on among passes that leave no core free; None: it does not
        wait for them.
        """
        busy_s = self.profile.wake_busy_s if self.profile else None
        return self.wake_s / busy_s if busy_s and busy_s > self.wake_s else None

    def resized(
        self,
        nodes: int | None = None,
        devices_per_node: int | None = None,
        node_bandwidth_gbit: float | None = None,
    ) -> Cluster:
        """With so many nodes, devices and 10⁹ bit/s each; the cards of a node are shared.

        Raises:
            ExperimentError: nodes differ, so it is not said which of them change; or nothing
                joins several.
        """
        now = self.topology.nodes
        if (nodes, devices_per_node, node_bandwidth_gbit) == (None, None, None):
            return self
        if len({*now}) > 1:
            key = "devices_per_node" if devices_per_node else "nodes"
            key = "node_bandwidth_gbit" if node_bandwidth_gbit else key
            raise ExperimentError(
                f"cluster.{key}: nodes of cluster {self.name} differ; change its file instead"
            )
        node, count = now[0], nodes or len(now)
        if devices_per_node is not None:
            node = with_devices(node, devices_per_node)
        if self.topology.network is None:
            if count > 1 or node_bandwidth_gbit is not None:
                raise ExperimentError(
                    f"cluster.nodes = {count}: cluster {self.name} has no [network]: one node only"
                )
        elif node_bandwidth_gbit is not None:
            node = replace(node, nic_bandwidth=node_bandwidth_gbit * 1e9 / 8 / node.nics)
        return replace(self, topology=replace(self.topology, nodes=(node,) * count))

    def shared_by(self, ranks: int) -> Cluster:
        """With so many ranks on every device. They talk through its memory, which is read and
        written, with the latency of the nearest link.

        Raises:
            ExperimentError: the ranks of a host share its cores already.
        """
        if ranks == 1:
            return self
        if self.cores is not None:
            raise ExperimentError(
                f"cluster.ranks_per_device = {ranks}: ranks of cluster {self.name} have no "
                "devices, they share the cores of their host; allowed: 1"
            )
        topology = self.topology
        used = {kind for node in topology.nodes for kind in node.devices}
        speed = min(self.kinds[k].memory_bandwidth * self.kinds[k].memory_efficiency for k in used)
        near = topology.island or topology.pcie or topology.network
        ways = near.protocols if near else {"memory": Protocol(0.0, 1.0)}
        memory = Link(speed / 2, {name: replace(way, efficiency=1.0) for name, way in ways.items()})
        return replace(self, topology=replace(topology, per_device=ranks, memory=memory))


def with_devices(node: Node, count: int) -> Node:
    """The same with more or fewer devices; an island of all of them stays one."""
    whole = node.per_island == len(node.devices)
    kinds = node.devices[:count] + node.devices[-1:] * (count - len(node.devices))
    island = count if whole else gcd(count, node.per_island)
    return replace(node, devices=kinds, per_island=island, per_switch=gcd(count, node.per_switch))

"""A cluster: machines, what joins them, and what messages and collectives take on it.

Everything is in seconds, bytes, bytes/s and FLOP/s. Clusters are built from cluster files
(`simulator.cluster.build`) or from a calibrated profile (`simulator.cluster.resolve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from simulator.cluster.communication_costs import CommunicationCosts
from simulator.cluster.device import Device
from simulator.cluster.library import Library
from simulator.cluster.links import Link, Protocol
from simulator.cluster.nodes import Nodes
from simulator.cluster.profile import Profile
from simulator.cluster.resource import Resource, ResourceKind
from simulator.cluster.timing import Timing
from simulator.cluster.topology import Topology
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op

MOST_DEVICES = 1 << 20
"""The largest number of devices of one node."""


@dataclass(frozen=True)
class Cluster:
    """Nodes of devices, what joins them, and the library that moves bytes between them.

    Attributes:
        kinds: devices by the name of their kind.
        library: what moves bytes.
        gloo: what gloo does; None: not known.
        remarks: what the reader of a prediction should know of it.
        algorithm: the only algorithm of collectives; None: the fastest one.
        cores: cores that the ranks of one node share; None: ranks have devices.
        device_capacity: how many passes at once, of ranks that share a device, get as much
            done as that many alone.
        issue_s: host time to begin a compute instruction.
        queue_s: host time that a communication takes from the compute instruction behind it.
        wake_s: time from the end of an instruction to the start of one on another stream.
        transfer_cores: cores that one rank's transfer occupies, unless the profile says so.
        taken: keys that its file does not say, and where they come from.
    """

    name: str
    source: str
    topology: Topology
    kinds: dict[str, Device]
    library: Library = field(default_factory=Library)
    gloo: Library | None = None
    remarks: tuple[str, ...] = ()
    algorithm: str | None = None
    cores: float | None = None
    device_capacity: float = 1.0
    issue_s: float = 0.0
    queue_s: float = 0.0
    wake_s: float = 0.0
    transfer_cores: float = 0.0
    profile: Profile | None = None
    taken: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def communication(self) -> CommunicationCosts:
        """The costs of messages and collectives between its ranks."""
        return CommunicationCosts(self.topology, self.library, self.algorithm)

    @property
    def notes(self) -> list[str]:
        """A sentence that says how much of the machine its file does not say itself, if any."""
        if not self.taken:
            return [*self.remarks]
        origins = {origin.partition(",")[0]: None for origin in self.taken.values()}
        presets = [origin for origin in origins if origin.startswith(("as ", "like "))]
        return [
            *self.remarks,
            f"{len(self.taken)} figures of cluster {self.name} are not in its file and were taken "
            f"({', '.join(presets) or 'defaults'}); `twinline clusters FILE` shows them",
        ]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return self.topology.nodes.count

    @property
    def devices_per_node(self) -> int:
        """The number of devices of the first node."""
        return len(self.topology.nodes.first.devices)

    @property
    def device(self) -> Device:
        """The first device."""
        return self.device_of(0)

    def device_of(self, rank: int) -> Device:
        """Return the device that `rank` is on."""
        return self.kinds[self.topology.kind(rank)]

    def node(self, rank: int) -> int:
        """Return the number of the node that `rank` is in."""
        return self.topology.node(rank)

    def compute_resource(self, rank: int) -> Resource:
        """Return what passes of `rank` share: the cores of its host, or its device."""
        if self.cores is not None:
            return Resource(ResourceKind.CORES, self.node(rank))
        return Resource(ResourceKind.DEVICE, self.topology.device(rank))

    @property
    def compute_capacity(self) -> float:
        """The number of passes that a compute resource runs at full speed."""
        return self.device_capacity if self.cores is None else self.cores

    def peak_flops(self, dtype: str, world_size: int) -> float | None:
        """Return FLOP/s of the devices in use ÷ ranks; None where a device's are not known.

        A device counts whole, however many of its ranks are in use.
        """
        last = self.topology.device(world_size - 1)
        counts = self.topology.nodes.kinds_of_first(last + 1)
        peaks = {kind: self.kinds[kind].peak_flops.get(dtype) for kind in counts}
        known = [count * (peaks[kind] or 0.0) for kind, count in counts.items()]
        return None if None in peaks.values() else sum(known) / world_size

    def message(self, source: int, target: int, nbytes: int) -> Timing:
        """Return how long a message takes, both ranks being ready, as the profile has it if any."""
        remote = self.is_measured_as_remote((source, target))
        known = self.profile.message(nbytes, remote) if self.profile else None
        return known or Timing.certain(self.communication.message_seconds(source, target, nbytes))

    def collective(self, op: Op, group: tuple[int, ...], nbytes: int, dtype: str = "") -> Timing:
        """Return how long a collective takes: as the profile has it, else as computed.

        Args:
            op: the operation.
            group: the ranks.
            nbytes: payload, of the larger side.
            dtype: the type of values that are summed; empty: that of the workload.
        """
        remote, profile = self.is_measured_as_remote(group), self.profile
        known = profile.collective(op, len(group), nbytes, remote, dtype) if profile else None
        return known or Timing.certain(self.communication.cost(op, group, nbytes).seconds)

    def is_measured_as_remote(self, ranks: tuple[int, ...]) -> bool:
        """Tell whether ranks are on several of the hosts that a profile was measured on."""
        if self.profile is None or self.profile.ranks_per_host is None:
            return False
        return len({self.node(rank) for rank in ranks}) > 1

    def resized(
        self,
        nodes: int | None = None,
        devices_per_node: int | None = None,
        node_bandwidth_gbit: float | None = None,
    ) -> Cluster:
        """Return this cluster with other numbers of nodes and devices, or another bandwidth.

        Args:
            nodes: number of nodes.
            devices_per_node: devices of each node, which share its network cards.
            node_bandwidth_gbit: 10⁹ bit/s of all network cards of a node, each way.

        Raises:
            ExperimentError: a number below 1; nodes differ, so it is not said which of them
                change; nothing joins several nodes; or more devices than a mesh of direct links
                has.
        """
        now = self.topology.nodes
        for key, number in (("nodes", nodes), ("devices_per_node", devices_per_node)):
            if number is not None and number < 1:
                raise ExperimentError(f"cluster.{key} = {number}: allowed: 1 or more")
        if (nodes, devices_per_node, node_bandwidth_gbit) == (None, None, None):
            return self
        if len(now.distinct) > 1:
            key = "devices_per_node" if devices_per_node else "nodes"
            key = "node_bandwidth_gbit" if node_bandwidth_gbit else key
            raise ExperimentError(
                f"cluster.{key}: nodes of cluster {self.name} differ; change its file instead"
            )
        node, count = now.first, nodes or now.count
        if devices_per_node is not None:
            self._check_devices(devices_per_node)
            node = node.with_devices(devices_per_node)
        if self.topology.network is None:
            if count > 1 or node_bandwidth_gbit is not None:
                raise ExperimentError(
                    f"cluster.nodes = {count}: cluster {self.name} has no [network]: one node only"
                )
        elif node_bandwidth_gbit is not None:
            node = replace(node, nic_bandwidth=node_bandwidth_gbit * 1e9 / 8 / node.nics)
        return replace(self, topology=replace(self.topology, nodes=Nodes(((node, count),))))

    def farther(self, latency_us: float) -> Cluster:
        """Return this cluster with so many µs more in each step between its nodes.

        Raises:
            ExperimentError: nothing joins several nodes, or what transfers take was measured.
        """
        network, key = self.topology.network, f"cluster.node_latency_us = {latency_us:g}"
        if self.profile is not None:
            raise ExperimentError(
                f"{key}: the transfers of {self.name} are measured; allowed: unset, or name a "
                "preset or a file"
            )
        if network is None:
            raise ExperimentError(f"{key}: cluster {self.name} has no [network]: one node only")
        farther = network.farther(latency_us * 1e-6)
        return replace(self, topology=replace(self.topology, network=farther))

    def with_gloo(self) -> Cluster:
        """Return this cluster with gloo for its library, if it says what that does."""
        if self.gloo is not None:
            return replace(self, library=self.gloo)
        if self.device.kind == "cpu":
            return self
        remark = (
            f"cluster {self.name} does not say what transfers take with run.backend = 'gloo' "
            "([collectives.gloo]); they are predicted as with NCCL"
        )
        return replace(self, remarks=(*self.remarks, remark))

    def _check_devices(self, count: int) -> None:
        """Refuse a node of `count` devices that cannot be built."""
        mesh, node = self.topology.mesh, self.topology.nodes.first
        if mesh is not None and node.with_devices(count).per_island > len(mesh):
            raise ExperimentError(
                f"cluster.devices_per_node = {count}: the {len(mesh)} devices of a node of cluster "
                f"{self.name} are joined by direct links, a mesh that cannot be grown; "
                f"allowed: 1 to {len(mesh)}"
            )
        if count > MOST_DEVICES:
            raise ExperimentError(
                f"cluster.devices_per_node = {count}: allowed: 1 to {MOST_DEVICES}"
            )

    def shared_by(self, ranks: int) -> Cluster:
        """Return this cluster with so many ranks on every device.

        They talk through the memory of the device, which is read and written, with the latency
        of the nearest link.

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
        used = {kind for node in topology.nodes.distinct for kind in node.devices}
        speed = min(self.kinds[k].memory_bandwidth * self.kinds[k].memory_efficiency for k in used)
        near = topology.island or topology.pcie or topology.network
        ways = near.protocols if near else {"memory": Protocol(0.0, 1.0)}
        memory = Link(speed / 2, {name: replace(way, efficiency=1.0) for name, way in ways.items()})
        return replace(self, topology=replace(topology, per_device=ranks, memory=memory))

"""Machines: devices, links and shared resources, from a preset or a calibrated profile.

A cluster file is TOML with units in its key names; inside, everything is in seconds,
bytes, bytes/s and FLOP/s. A calibrated profile (JSON, `simulator.profile`) describes the
machine it was measured on.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from math import gcd

from simulator.cluster_file import (
    ClusterFile,
    NodesTable,
    ProtocolTable,
    parse_cluster,
    read_cluster,
)
from simulator.collectives import Collectives, InNetwork, Library
from simulator.device import Device, device_of
from simulator.experiment import ClusterChoice, Experiment, ExperimentError
from simulator.profile import Profile, Timing, load_profile
from simulator.topology import Link, Node, Protocol, Tier, Topology


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
        """From the profile if it has any; else from `simulator.collectives`."""
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
        wait for them."""
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
            node = _with_devices(node, devices_per_node)
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


def _with_devices(node: Node, count: int) -> Node:
    """The same with more or fewer devices; an island of all of them stays one."""
    whole = node.per_island == len(node.devices)
    kinds = node.devices[:count] + node.devices[-1:] * (count - len(node.devices))
    island = count if whole else gcd(count, node.per_island)
    return replace(node, devices=kinds, per_island=island, per_switch=gcd(count, node.per_switch))


def preset_names() -> list[str]:
    folder = resources.files("simulator") / "clusters"
    return sorted(
        entry.name[: -len(".toml")] for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_preset(name: str) -> Cluster:
    """The preset `name`.

    Raises:
        ExperimentError: there is no such preset.
    """
    if name not in preset_names():
        raise ExperimentError(f"cluster.preset = {name!r}: allowed: {', '.join(preset_names())}")
    text = (resources.files("simulator") / "clusters" / f"{name}.toml").read_text(encoding="utf-8")
    return cluster_of(parse_cluster(tomllib.loads(text), f"cluster.preset = {name!r}"))


def cluster_of(file: ClusterFile) -> Cluster:
    """What a cluster file describes, in seconds, bytes, bytes/s and FLOP/s."""
    host, library, island = file.host, file.collectives, file.island
    switched = library.in_network
    nodes = tuple(
        _node(entry, joined=island is not None) for entry in file.nodes for _ in range(entry.count)
    )
    pcie = _link(file.pcie.bandwidth_gbyte, file.pcie.protocols) if file.pcie else None
    return Cluster(
        name=file.name,
        source=file.source,
        topology=Topology(
            nodes,
            island=_link(island.bandwidth_gbyte, island.protocols) if island else None,
            mesh=tuple(map(tuple, island.mesh)) if island and island.mesh else None,
            pcie=pcie,
            network=_link(0.0, file.network.protocols) if file.network else None,
            tiers=tuple(
                Tier(tier.nodes_per_switch, tier.oversubscription)
                for tier in (file.network.tiers if file.network else [])
            ),
        ),
        kinds={name: device_of(table) for name, table in file.devices.items()},
        library=Library(
            start_s=library.start_us * 1e-6,
            copy_bandwidth=library.copy_gbyte * 1e9 if library.copy_gbyte else float("inf"),
            algorithms=tuple(library.algorithms),
            in_network=InNetwork(switched.latency_us * 1e-6, switched.efficiency, switched.devices)
            if switched
            else None,
            transfer_share=library.transfer_share,
        ),
        cores=host.cores if host else None,
        issue_s=host.issue_us * 1e-6 if host else 0.0,
        queue_s=host.queue_us * 1e-6 if host else 0.0,
        wake_s=host.wake_us * 1e-6 if host else 0.0,
        transfer_cores=host.transfer_cores if host else 0.0,
    )


def _link(bandwidth_gbyte: float, protocols: dict[str, ProtocolTable]) -> Link:
    ways = {n: Protocol(p.latency_us * 1e-6, p.efficiency) for n, p in protocols.items()}
    return Link(bandwidth_gbyte * 1e9, ways)


def _node(table: NodesTable, joined: bool) -> Node:
    devices = tuple(kind for kind, count in table.devices.items() for _ in range(count))
    return Node(
        devices,
        per_island=table.devices_per_island or (len(devices) if joined else 1),
        per_switch=table.devices_per_switch or 1,
        nics=table.nics or 1,
        nic_bandwidth=(table.nic_gbit or 0.0) * 1e9 / 8,
    )


def from_profile(profile: Profile) -> Cluster:
    """The machine that `profile` was measured on, as a cluster of one node."""
    base, loss = load_preset("laptop"), profile.transfer_loss or 0.0
    device = replace(
        base.device,
        name=f"{profile.machine.get('processor', 'this machine')}",
        kind="cpu" if profile.device == "cpu" else "gpu",
        memory_bytes=float(profile.machine.get("memory_bytes") or base.device.memory_bytes),
        peak_flops=base.device.peak_flops | profile.peak_flops,
    )
    return replace(
        base,
        name=f"profile of {profile.machine.get('hostname', 'a machine')}",
        source=f"calibrated {profile.machine.get('date', '')}",
        topology=replace(base.topology, nodes=(_with_devices(base.topology.nodes[0], 1 << 16),)),
        kinds={base.topology.kind(0): device},
        library=replace(base.library, transfer_share=loss / (1.0 - loss)),
        cores=profile.capacity or float(profile.machine["cores"])
        if profile.device == "cpu"
        else None,
        device_capacity=profile.capacity or 1.0,
        issue_s=profile.issue_s,
        queue_s=profile.queue_s,
        wake_s=profile.wake_s,
        transfer_cores=profile.transfer_cores,
        profile=profile,
    )


def resolve(experiment: Experiment, fallback: Profile | None = None) -> Cluster:
    """The cluster that `experiment` names; without a name, `fallback` or the laptop preset.

    Raises:
        ExperimentError: unknown preset, unreadable profile, one of other numbers of ranks on a
            device, or too few devices.
    """
    choice = experiment.cluster
    if choice.profile is not None:
        profile = load_profile(choice.profile)
        if profile.ranks_per_device != choice.ranks_per_device:
            raise ExperimentError(
                f"cluster.ranks_per_device = {choice.ranks_per_device}: allowed with "
                f"cluster.profile = {choice.profile!r}: {profile.ranks_per_device}"
            )
        cluster = from_profile(profile)
    elif choice.file is not None:
        cluster = cluster_of(read_cluster(choice.file))
    elif choice.preset is None and fallback is not None:
        cluster = from_profile(fallback)
    else:
        cluster = load_preset("laptop" if choice.preset is None else choice.preset)
    cluster = _chosen(cluster, choice, experiment.world_size)
    available = cluster.topology.num_ranks
    if experiment.world_size > available:
        each = sorted({len(node.devices) for node in cluster.topology.nodes})
        of_node = available // cluster.nodes
        advice = f"raise cluster.nodes to {-(-experiment.world_size // of_node)}"
        if len(set(cluster.topology.nodes)) > 1 or cluster.topology.network is None:
            advice = "describe more in its file"
        raise ExperimentError(
            f"parallel: data × pipeline × … = {experiment.world_size} ranks; cluster "
            f"{cluster.name} has {cluster.nodes} × {' or '.join(map(str, each))} = "
            f"{cluster.topology.num_devices} devices; {advice}"
        )
    return cluster


def _chosen(cluster: Cluster, choice: ClusterChoice, world_size: int) -> Cluster:
    """With what the experiment says of nodes, cards and algorithm.

    Where `nodes` is not given there are enough of them, if all are alike and joined.
    """
    per_node, sharing = choice.devices_per_node, choice.ranks_per_device
    if cluster.cores is not None and per_node is None:  # ranks of one host share its cores
        per_node = max(cluster.devices_per_node, world_size)
    nodes, alike = choice.nodes, len({*cluster.topology.nodes}) == 1
    if nodes is None and alike and cluster.topology.network is not None:
        filled = (per_node or cluster.devices_per_node) * sharing
        nodes = max(cluster.nodes, -(-world_size // filled))
    unchanged = nodes == cluster.nodes and choice.nodes is None
    cluster = cluster.resized(
        None if unchanged else nodes,
        None if per_node == cluster.devices_per_node else per_node,
        choice.node_bandwidth_gbit,
    ).shared_by(sharing)
    if choice.algorithm == "auto":
        return cluster
    if cluster.profile is not None and cluster.profile.collectives:
        raise ExperimentError(
            f"cluster.algorithm = {choice.algorithm!r}: the collectives of {cluster.name} are "
            "measured, whichever it takes; allowed: 'auto', or name a preset or a file"
        )
    if choice.algorithm == "in-network" and cluster.library.in_network is None:
        raise ExperimentError(
            f"cluster.algorithm = 'in-network': cluster {cluster.name} has no "
            f"[collectives.in_network]; it has: {', '.join(cluster.library.algorithms)}"
        )
    return replace(cluster, algorithm=choice.algorithm)

"""Machines: devices, links and shared resources, from a preset or a calibrated profile.

A cluster file is TOML with units in its key names; inside, everything is in seconds,
bytes, bytes/s and FLOP/s. A calibrated profile (JSON, `simulator.profile`) describes the
machine it was measured on.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from simulator.device import Device, device_from
from simulator.experiment import ClusterChoice, Experiment, ExperimentError
from simulator.profile import Profile, load_profile, ring_seconds


@dataclass(frozen=True)
class Link:
    """A connection: seconds before the first byte, then bytes/s (already times efficiency)."""

    latency_s: float
    bandwidth: float

    def seconds(self, nbytes: float) -> float:
        return self.latency_s + nbytes / self.bandwidth


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices. `link` joins the devices of one node; `network` is the
    share of the node's NICs that belongs to one device. `cores` (None: not shared) is how
    many cores the ranks of one node share, `transfer_cores` what one rank's transfer
    occupies of them, `issue_s` the host time to queue an instruction, `wake_s` the time
    from the end of an instruction to the start of one on another stream that waited."""

    name: str
    source: str
    nodes: int
    devices_per_node: int
    device: Device
    link: Link
    network: Link
    network_efficiency: float = 1.0
    cores: float | None = None
    issue_s: float = 0.0
    wake_s: float = 0.0
    transfer_cores: float = 0.0
    profile: Profile | None = None

    def node(self, rank: int) -> int:
        return rank // self.devices_per_node

    def message_seconds(self, source: int, target: int, nbytes: int) -> float:
        """One message, both ranks ready: latency + bytes ÷ bandwidth."""
        if self.profile and self.profile.messages:
            return self.profile.message(nbytes).mean_s
        same = self.node(source) == self.node(target)
        return (self.link if same else self.network).seconds(nbytes)

    def collective_seconds(self, op: str, group: tuple[int, ...], nbytes: int) -> float:
        """A ring, or for an all-to-all an exchange of pairs (`simulator.profile.ring_seconds`).

        Over several nodes the slower hop decides. In a ring the members on one node share that
        node's part of the network; in an all-to-all each sends to every other node itself.
        """
        size = len(group)
        if self.profile:
            timing = self.profile.collective(op, size, nbytes)
            if timing is not None:
                return timing.mean_s
        nodes = Counter(self.node(rank) for rank in group)
        if len(nodes) == 1:
            return ring_seconds(op, size, nbytes, self.link.latency_s, self.link.bandwidth)
        here = min(nodes.values())
        if op == "ALL_TO_ALL":
            bandwidth = min(
                self.link.bandwidth, self.network.bandwidth * (size - 1) / (size - here)
            )
        else:
            bandwidth = min(self.link.bandwidth, self.network.bandwidth * here)
        return ring_seconds(op, size, nbytes, self.network.latency_s, bandwidth)


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
    return _from_toml(tomllib.loads(text))


def _from_toml(data: dict[str, Any]) -> Cluster:
    host, link = data.get("host", {}), data["link"]
    count = int(data["nodes"]["devices_per_node"])
    intra = Link(
        link["latency_us"] * 1e-6, link["bandwidth_gbyte"] * 1e9 * link.get("efficiency", 1.0)
    )
    network = intra
    if "network" in data:
        nic = data["network"]
        per_device = nic["node_bandwidth_gbit"] * 1e9 / 8 / count
        network = Link(nic["latency_us"] * 1e-6, per_device * nic.get("efficiency", 1.0))
    return Cluster(
        name=data["name"],
        source=data["source"],
        nodes=int(data["nodes"]["count"]),
        devices_per_node=count,
        device=device_from(data["device"], data["name"]),
        link=intra,
        network=network,
        network_efficiency=data.get("network", {}).get("efficiency", 1.0),
        cores=host.get("cores"),
        issue_s=host.get("issue_us", 0.0) * 1e-6,
        wake_s=host.get("wake_us", 0.0) * 1e-6,
        transfer_cores=host.get("transfer_cores", 0.0),
    )


def from_profile(profile: Profile) -> Cluster:
    """The machine that `profile` was measured on, as a cluster of one node."""
    base = load_preset("laptop")
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
        devices_per_node=1 << 16,
        device=device,
        cores=profile.effective_cores or float(profile.machine["cores"])
        if profile.device == "cpu"
        else None,
        issue_s=profile.issue_s,
        wake_s=profile.wake_s,
        transfer_cores=profile.transfer_cores,
        profile=profile,
    )


def resolve(experiment: Experiment, fallback: Profile | None = None) -> Cluster:
    """The cluster that `experiment` names; without a name, `fallback` or the laptop preset.

    Raises:
        ExperimentError: unknown preset, unreadable profile, or too few devices.
    """
    choice = experiment.cluster
    if choice.profile is not None:
        cluster = from_profile(load_profile(choice.profile))
    elif choice.preset is None and fallback is not None:
        cluster = from_profile(fallback)
    else:
        cluster = load_preset("laptop" if choice.preset is None else choice.preset)
    cluster = _resized(cluster, choice, experiment.world_size)
    available = cluster.nodes * cluster.devices_per_node
    if experiment.world_size > available:
        raise ExperimentError(
            f"parallel: data × pipeline × … = {experiment.world_size} ranks; cluster "
            f"{cluster.name} has {cluster.nodes} × {cluster.devices_per_node} = {available} "
            f"devices; raise cluster.nodes to "
            f"{-(-experiment.world_size // cluster.devices_per_node)}"
        )
    return cluster


def _resized(cluster: Cluster, choice: ClusterChoice, world_size: int) -> Cluster:
    """Apply `nodes`, `devices_per_node` and `node_bandwidth_gbit` of the experiment.

    The NICs of a node are shared by its devices. Where `nodes` is not given there are
    enough of them.
    """
    node_bandwidth = cluster.network.bandwidth * cluster.devices_per_node
    if choice.node_bandwidth_gbit is not None:
        node_bandwidth = choice.node_bandwidth_gbit * 1e9 / 8 * cluster.network_efficiency
    per_node = choice.devices_per_node or cluster.devices_per_node
    if cluster.cores is not None and choice.devices_per_node is None:
        per_node = max(per_node, world_size)  # ranks of one host share its cores
    nodes = choice.nodes or max(cluster.nodes, -(-world_size // per_node))
    return replace(
        cluster,
        nodes=nodes,
        devices_per_node=per_node,
        network=replace(cluster.network, bandwidth=node_bandwidth / per_node),
    )

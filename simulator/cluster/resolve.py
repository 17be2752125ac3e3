"""Finds the cluster that an experiment asks for, and refuses one that is too small."""

from __future__ import annotations

from dataclasses import replace

from simulator.cluster.build import cluster_of
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.file import read_cluster
from simulator.cluster.nodes import Nodes
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import load_profile
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.describe import describe_ranks
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError

MOST_PROFILE_RANKS = 1 << 16
"""The largest number of ranks on the machine of a profile."""


def from_profile(profile: Profile) -> Cluster:
    """Return the machine that `profile` was measured on: one node, or as many as it takes."""
    most = profile.ranks_per_host or MOST_PROFILE_RANKS
    devices = max(most // profile.ranks_per_device, 1)
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
        topology=replace(
            base.topology,
            nodes=Nodes.of([base.topology.nodes.first.with_devices(devices)]),
        ),
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
    """Return the cluster that `experiment` names; else `fallback`, else the laptop preset.

    Raises:
        ExperimentError: unknown preset, unreadable profile, a profile that was measured with
            another number of ranks on a device, or too few devices.
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
    if choice.node_latency_us is not None:
        cluster = cluster.farther(choice.node_latency_us)
    if experiment.run.backend == "gloo" and cluster.profile is None:
        cluster = cluster.with_gloo()
    available = cluster.topology.num_ranks
    if experiment.world_size > available:
        each = sorted({len(node.devices) for node in cluster.topology.nodes.distinct})
        of_node = available // cluster.nodes
        advice = f"raise cluster.nodes to {-(-experiment.world_size // of_node)}"
        if len(cluster.topology.nodes.distinct) > 1 or cluster.topology.network is None:
            advice = "describe more in its file"
        raise ExperimentError(
            f"{describe_ranks(experiment)}; cluster "
            f"{cluster.name} has {cluster.nodes} × {' or '.join(map(str, each))} = "
            f"{cluster.topology.num_devices} devices; {advice}"
        )
    return cluster


def _chosen(cluster: Cluster, choice: ClusterChoice, world_size: int) -> Cluster:
    """Return `cluster` with the nodes, cards and algorithm that the experiment chooses.

    Where `nodes` is not given there are enough of them, if all are alike and joined.
    """
    per_node, sharing = choice.devices_per_node, choice.ranks_per_device
    wired = cluster.topology.mesh is not None  # nodes of direct links cannot be grown
    # Ranks of one host share its cores, however many they are; several hosts have been measured.
    hosts = cluster.profile is not None and cluster.profile.ranks_per_host is not None
    if cluster.cores is not None and per_node is None and not wired and not hosts:
        per_node = max(cluster.devices_per_node, world_size)
    nodes, alike = choice.nodes, len(cluster.topology.nodes.distinct) == 1
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
    profile = cluster.profile
    if profile is not None and (profile.collectives or profile.remote_collectives):
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

"""Building a cluster from the tables of its file, in seconds, bytes, bytes/s and FLOP/s."""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.cluster.device import device_of
from simulator.cluster.file import CheckedFile
from simulator.cluster.library import InNetwork, Library
from simulator.cluster.links import Connection, Link, Protocol
from simulator.cluster.nodes import Node, Nodes
from simulator.cluster.tables import (
    ConnectionTable,
    InNetworkTable,
    LibraryTable,
    NodesTable,
    ProtocolTable,
)
from simulator.cluster.topology import Tier, Topology


def cluster_of(checked: CheckedFile) -> Cluster:
    """Return the cluster that a file describes, in seconds, bytes, bytes/s and FLOP/s."""
    file = checked.tables
    host, library, island = file.host, file.collectives, file.island
    connection = file.network.connection if file.network else None
    nodes = Nodes(
        tuple((_node(entry, joined=island is not None), entry.count) for entry in file.nodes)
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
            network=_link(0.0, file.network.protocols, connection) if file.network else None,
            tiers=tuple(
                Tier(tier.nodes_per_switch, tier.oversubscription)
                for tier in (file.network.tiers if file.network else [])
            ),
        ),
        kinds={name: device_of(table) for name, table in file.devices.items()},
        library=_library(library, library.in_network),
        gloo=_library(library.gloo) if library.gloo else None,
        cores=host.cores if host else None,
        issue_s=host.issue_us * 1e-6 if host else 0.0,
        queue_s=host.queue_us * 1e-6 if host else 0.0,
        wake_s=host.wake_us * 1e-6 if host else 0.0,
        transfer_cores=host.transfer_cores if host else 0.0,
        taken=checked.taken,
    )


def _link(
    bandwidth_gbyte: float,
    protocols: dict[str, ProtocolTable],
    connection: ConnectionTable | None = None,
) -> Link:
    ways = {n: Protocol(p.latency_us * 1e-6, p.efficiency) for n, p in protocols.items()}
    limits = None
    if connection is not None:
        limits = Connection(connection.gbit * 1e9 / 8, connection.window_mb * 1e6)
    return Link(bandwidth_gbyte * 1e9, ways, limits)


def _library(table: LibraryTable, switched: InNetworkTable | None = None) -> Library:
    return Library(
        start_s=table.start_us * 1e-6,
        copy_bandwidth=table.copy_gbyte * 1e9 if table.copy_gbyte else float("inf"),
        algorithms=tuple(table.algorithms),
        in_network=InNetwork(switched.latency_us * 1e-6, switched.efficiency, switched.devices)
        if switched
        else None,
        transfer_share=table.transfer_share,
        connections=table.connections,
        piece_s=table.piece_us * 1e-6,
    )


def _node(table: NodesTable, joined: bool) -> Node:
    devices = tuple(kind for kind, count in table.devices.items() for _ in range(count))
    return Node(
        devices,
        per_island=table.devices_per_island or (len(devices) if joined else 1),
        per_switch=table.devices_per_switch or 1,
        nics=table.nics or 1,
        nic_bandwidth=(table.nic_gbit or 0.0) * 1e9 / 8,
    )

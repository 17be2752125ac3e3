"""The tables of a cluster file: device kinds, nodes, links and switches.

Units are part of the key names; `simulator.cluster.build` turns them into seconds and bytes/s.
``docs/clusters.md`` is the reference.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from simulator.cluster.device import DeviceTable, PeakTable
from simulator.cluster.table_fields import Amount, Count, Rate, Share, Table
from simulator.experiment.cluster_choice import Algorithm


class NodesTable(Table):
    """The table ``[[nodes]]``: a number of equal nodes.

    Attributes:
        count: number of nodes.
        devices: number of devices of each kind, in the order in which ranks are placed.
        devices_per_island: devices that one ``[island]`` joins; unset, all of the node.
        devices_per_switch: devices behind one PCIe switch or host bridge; unset, each has its
            own.
        nics: network cards of a node.
        nic_gbit: 10⁹ bit/s of each network card, each way.
    """

    count: Count = 1
    devices: Annotated[dict[str, Count], Field(min_length=1)]
    devices_per_island: Count | None = None
    devices_per_switch: Count | None = None
    nics: Count | None = None
    nic_gbit: Rate | None = None


class ProtocolTable(Table):
    """A protocol of a link: µs a step, and the share of the bandwidth that is reached."""

    latency_us: Amount
    efficiency: Share


Protocols = Annotated[dict[str, ProtocolTable], Field(min_length=1)]


class LinkTable(Table):
    """A link of a device: bandwidth each way, in 10⁹ bytes/s."""

    bandwidth_gbyte: Rate
    protocols: Protocols


class PcieTable(LinkTable):
    """The table ``[pcie]``: bandwidth of one device.

    Attributes:
        peer_access: devices reach each other's memory; otherwise transfers are staged in the
            memory of the host. It decides which protocols are taken where none are said.
    """

    peer_access: bool = True


class IslandTable(LinkTable):
    """The table ``[island]``: bandwidth of one device; with `mesh`, of one link.

    Attributes:
        mesh: number of direct links between the devices of an island, row by row.
    """

    mesh: list[list[Annotated[int, Field(ge=0)]]] | None = None


class TierTable(Table):
    """The table ``[[network.tiers]]``: one tier of switches, from the nodes upwards.

    Attributes:
        nodes_per_switch: nodes below one switch of this tier.
        oversubscription: bandwidth of the nodes below it ÷ bandwidth of its uplinks.
    """

    nodes_per_switch: Count
    oversubscription: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0


class ConnectionTable(Table):
    """The table ``[network.connection]``: the limits of one TCP connection between nodes.

    Attributes:
        gbit: 10⁹ bit/s that it carries at most.
        window_mb: 10⁶ bytes that are under way at most, sent and not confirmed.
    """

    gbit: Rate
    window_mb: Rate


class NetworkTable(Table):
    """The table ``[network]`` between nodes; its bandwidth is that of the network cards."""

    protocols: Protocols
    connection: ConnectionTable | None = None
    tiers: list[TierTable] = Field(default=[])


class InNetworkTable(ProtocolTable):
    """The table ``[collectives.in_network]``: a switch adds up, for `devices` or more."""

    devices: Count = 2


class LibraryTable(Table):
    """The table ``[collectives.gloo]``: what gloo does, where ``run.backend`` asks for it.

    Attributes:
        start_us: time before the first step of a collective or message.
        copy_gbyte: 10⁹ bytes/s at which a device puts the payload in place; unset, no time.
        algorithms: algorithms that the library has; the fastest is chosen.
        transfer_share: share of a device that a transfer takes from passes beside it.
        connections: TCP connections that share what a rank sends to another one.
        piece_us: host time for each piece of a transfer that goes piecewise.
    """

    start_us: Amount = 0.0
    copy_gbyte: Rate | None = None
    algorithms: list[Algorithm] = Field(
        default=["ring", "halving-doubling", "tree", "hierarchical", "pairwise"], min_length=1
    )
    transfer_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    connections: Count = 1
    piece_us: Amount = 0.0


class CollectivesTable(LibraryTable):
    """The table ``[collectives]``: what the communication library does.

    Attributes:
        in_network: switches that add up, if there are any.
        gloo: what it is with ``run.backend = "gloo"``; unset, the same.
    """

    in_network: InNetworkTable | None = None
    gloo: LibraryTable | None = None


class HostTable(Table):
    """The table ``[host]``: the ranks of a node share its cores."""

    cores: Rate
    issue_us: Amount = 0.0
    queue_us: Amount = 0.0
    wake_us: Amount = 0.0
    transfer_cores: Amount = 0.0


class ClusterFile(Table):
    """A whole cluster file; `parse_cluster` is the way to make one.

    Attributes:
        like: the preset, or its short name, that has what is not said here.
    """

    like: str | None = None
    name: str
    source: str
    devices: Annotated[dict[str, DeviceTable], Field(min_length=1)]
    nodes: Annotated[list[NodesTable], Field(min_length=1)]
    island: IslandTable | None = None
    pcie: PcieTable | None = None
    network: NetworkTable | None = None
    collectives: CollectivesTable = CollectivesTable()
    host: HostTable | None = None


TABLES: dict[str, type[BaseModel]] = {
    "peak_tflops": PeakTable,
    "nodes": NodesTable,
    "island": IslandTable,
    "pcie": PcieTable,
    "network": NetworkTable,
    "tiers": TierTable,
    "connection": ConnectionTable,
    "collectives": CollectivesTable,
    "in_network": InNetworkTable,
    "gloo": LibraryTable,
    "host": HostTable,
}
NAMED_TABLES: dict[str, type[BaseModel]] = {"devices": DeviceTable, "protocols": ProtocolTable}
"""The tables whose names are the user's, by the table that they are in."""

"""What a cluster is, for ``twinline clusters``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from simulator.cluster.cluster import Cluster


def describe_cluster(cluster: Cluster) -> dict[str, Any]:
    """Of the first node: devices by name, links in the units of the file, the source."""
    topology, node = cluster.topology, cluster.topology.nodes.first
    island = topology.island if node.per_island > 1 else None
    joined = topology.network is not None
    return {
        "name": cluster.name,
        "devices": dict(Counter(cluster.kinds[kind].name for kind in node.devices)),
        "devices_per_island": node.per_island,
        "island_gbyte": island.bandwidth / 1e9 if island else None,
        "mesh": topology.mesh is not None,
        "pcie_gbyte": topology.pcie.bandwidth / 1e9 if topology.pcie else None,
        "nics": node.nics if joined else 0,
        "nic_gbit": node.nic_bandwidth * 8 / 1e9 if joined else None,
        "algorithms": list(cluster.library.algorithms),
        "source": cluster.source,
    }


def print_clusters(console: Console, rows: list[dict[str, Any]]) -> None:
    """A table, one row a cluster."""
    table = Table("cluster", "devices of a node", "links", "source")
    for row in rows:
        links = []
        if row["island_gbyte"]:
            how = "per link, mesh" if row["mesh"] else "per device"
            links.append(
                f"islands of {row['devices_per_island']}, {row['island_gbyte']:g} GB/s {how}"
            )
        if row["pcie_gbyte"]:
            links.append(f"PCIe {row['pcie_gbyte']:g} GB/s")
        if row["nics"]:
            links.append(f"{row['nics']} × {row['nic_gbit']:g} Gbit/s")
        devices = ", ".join(f"{count} × {name}" for name, count in row["devices"].items())
        table.add_row(row["name"], devices, "; ".join(links), row["source"])
    console.print(table)

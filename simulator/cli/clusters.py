"""The command ``clusters``: what the presets are."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from simulator.cli.application import user_errors
from simulator.cli.options import AsJson
from simulator.cli.outputs import deliver
from simulator.cli.terminal import print_filled, stdout_console
from simulator.cluster.catalogue import load_preset, preset_names
from simulator.cluster.cluster import Cluster
from simulator.units import nbytes


@user_errors
def clusters(as_json: AsJson = False) -> None:
    """List the cluster presets: devices, memory, peak rates, links, and sources of the figures.

    Name one with --set cluster.preset=NAME, or describe your own machines in a cluster file
    (cluster.file) or by calibration (see calibrate).

    Examples:
        twinline predict --set cluster.preset=dgx-a100-80gb
        twinline predict --set cluster.file=CLUSTER.toml
    """
    rows = [describe_cluster(load_preset(name)) for name in preset_names()]

    def show() -> None:
        if as_json:
            print(json.dumps({"clusters": rows}))
        else:
            print_clusters(stdout_console(), rows)

    deliver(show)


def describe_cluster(cluster: Cluster) -> dict[str, Any]:
    """Return devices and links of the first node, in the units of a cluster file."""
    topology, node = cluster.topology, cluster.topology.nodes.first
    island = topology.island if node.per_island > 1 else None
    joined = topology.network is not None
    return {
        "name": cluster.name,
        "devices": dict(Counter(cluster.kinds[kind].name for kind in node.devices)),
        "memory_bytes": cluster.device.memory_bytes,
        "peak_tflops": {dtype: peak / 1e12 for dtype, peak in cluster.device.peak_flops.items()},
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
    """Print a table with one row for each cluster, and the sources of their figures."""
    table = Table(
        "cluster", "devices of a node", "memory", Column("TFLOP/s", no_wrap=True), "links"
    )
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
        peak = row["peak_tflops"]
        rates = f"{peak['bf16']:g} bf16\n{peak['fp32']:g} fp32"
        memory = nbytes(row["memory_bytes"])
        table.add_row(row["name"], devices, memory, rates, "; ".join(links))
    console.print(table)
    console.print("memory and TFLOP/s (10¹² FLOP/s) are those of one device, from data sheets:")
    for row in rows:
        print_filled(console, f"{row['name']}: {row['source']}")

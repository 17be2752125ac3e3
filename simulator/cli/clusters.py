"""The command ``clusters``: what the presets are, and every key of a cluster file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from simulator.cli.console import print_filled, stdout_console
from simulator.cli.options import AsJson
from simulator.cli.outputs import deliver
from simulator.cli.user_errors import user_errors
from simulator.cluster.build import cluster_of
from simulator.cluster.catalogue import load_preset, read_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.completion import inside
from simulator.cluster.file import CheckedFile, read_cluster
from simulator.cluster.preset_files import preset_names, unknown_preset
from simulator.experiment.section import ExperimentError
from simulator.units import nbytes

Name = Annotated[
    str | None, typer.Argument(help="A preset, or a cluster file, of which every key is shown.")
]


@user_errors
def clusters(name: Name = None, as_json: AsJson = False) -> None:
    """List the cluster presets; or all keys of one, or of a cluster file of yours.

    Name one with --set cluster.preset=NAME, or describe your own machines in a cluster file
    (cluster.file) or by calibration (see calibrate). Keys that a file does not say have values
    of presets, and it is shown of which.

    Examples:
        twinline predict --set cluster.preset=dgx-a100-80gb
        twinline predict --set cluster.file=CLUSTER.toml
        twinline clusters CLUSTER.toml
    """
    if name is not None:
        show_one(name, as_json)
        return
    rows = [describe_cluster(load_preset(preset)) for preset in preset_names()]

    def show() -> None:
        if as_json:
            print(json.dumps({"clusters": rows}))
        else:
            print_clusters(stdout_console(), rows)

    deliver(show)


def show_one(name: str, as_json: bool) -> None:
    """Print every key of a preset, or of the cluster file at a path, and where its value is from.

    Raises:
        ExperimentError: there is neither; or the file describes no machine.
    """
    is_file = name.endswith(".toml") or Path(name).is_file()
    if not is_file and name not in preset_names():
        raise ExperimentError(f"{unknown_preset(name, 'NAME')}, or the path of a cluster file")
    checked = read_cluster(name) if is_file else read_preset(name)
    row = describe_cluster(cluster_of(checked))
    values = checked.keys().items()
    keys = [{"key": k, "value": value, "from": checked.taken.get(k)} for k, value in values]

    def show() -> None:
        if as_json:
            print(json.dumps({"cluster": row, "keys": keys}))
        else:
            print("\n".join(file_lines(checked)))

    deliver(show)


def file_lines(checked: CheckedFile) -> Iterator[str]:
    """Yield a cluster file with all of its keys; a comment says where one comes from.

    It is TOML, and describes the same machine when it is read.
    """
    tables: dict[str, Any] = checked.tables.model_dump(exclude_unset=True)
    yield from _keys({k: v for k, v in tables.items() if not _is_table(v)}, "", checked.taken)
    for name, value in tables.items():
        if name == "devices":
            for kind, device in value.items():
                yield from ["", f"[devices.{_word(kind)}]"]
                yield from _keys(device, f"devices.{kind}", checked.taken)
        elif _is_table(value):
            yield from _table(name, value, name, checked.taken)


def _table(name: str, value: Any, place: str, taken: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table, or of a list of tables, and of the lists of tables in it."""
    if isinstance(value, list):
        for number, table in enumerate(value):
            yield from ["", f"[[{name}]]", *_keys(table, f"{place}.{number}", taken)]
        return
    yield from ["", f"[{name}]"]
    yield from _keys({k: v for k, v in value.items() if not _is_list(v)}, place, taken)
    for key in filter(lambda key: _is_list(value[key]), value):
        yield from _table(f"{name}.{key}", value[key], f"{place}.{key}", taken)


def _keys(table: dict[str, Any], place: str, taken: Mapping[str, str], of: str = "") -> list[str]:
    """Return a line for each key of a table; those of tables in it have dotted names."""
    lines = []
    for key, value in table.items():
        where, name = inside(place, key), f"{of}{_word(key)}"
        if isinstance(value, dict):
            lines += _keys(value, where, taken, f"{name}.")
        elif where == "pcie.peer_access" and value is False:
            # peer_access only says which protocols are taken, and here they are
            lines.append("# peer_access = false: these efficiencies are those without it")
        elif value is not None:
            line = f"{name} = {_value(value)}"
            lines.append(f"{line:<38}  # {taken[where]}" if where in taken else line)
    return lines


def _is_list(value: Any) -> bool:
    """Tell whether a value is a list of tables."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_table(value: Any) -> bool:
    """Tell whether a value is a table, or a list of tables."""
    return isinstance(value, dict) or _is_list(value)


def _word(key: str) -> str:
    """Return a key as TOML writes it."""
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isalnum() and bare.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return json.dumps(value, ensure_ascii=False)


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
        half = max(("bf16", "fp16"), key=lambda dtype: peak[dtype])  # V100 has fp16 units only
        rates = f"{peak[half]:g} {half}\n{peak['fp32']:g} fp32"
        memory = nbytes(row["memory_bytes"])
        table.add_row(row["name"], devices, memory, rates, "; ".join(links))
    console.print(table)
    console.print("memory and TFLOP/s (10¹² FLOP/s) are those of one device, from data sheets:")
    for row in rows:
        print_filled(console, f"{row['name']}: {row['source']}")
    console.print("`twinline clusters NAME` shows all keys of one, or of a cluster file.")

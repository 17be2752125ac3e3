"""Cluster files: what is refused, in one line."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from simulator import ExperimentError, load
from simulator.cluster.file import parse_cluster, read_cluster
from simulator.cluster.preset_files import PRESETS
from simulator.cluster.resolve import resolve


def base() -> dict[str, Any]:
    text = (resources.files("simulator.cluster") / "presets" / "dgx-v100.toml").read_text("utf-8")
    return tomllib.loads(text)


def changed(place: str, value: Any) -> dict[str, Any]:
    data = base()
    *tables, key = place.split(".")
    table: Any = data
    for name in tables:
        table = table[int(name)] if isinstance(table, list) else table.setdefault(name, {})
    if value is None:
        del table[key]
    else:
        table[int(key) if isinstance(table, list) else key] = value
    return data


WAYS = {"Simple": {"latency_us": 1, "efficiency": 0.5}}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("name", None, "name: missing"),
        ("colour", 1, "colour: unknown key; known here: like, name, source, devices, nodes, is"),
        ("island.bandwith", 1, "island.bandwith: unknown key; known here: bandwidth_gbyte, "),
        ("devices.v100.memory_gb", 1, "memory_gb: unknown key; did you mean memory_gib? known h"),
        ("nodes.0.cards", 1, "nodes.0.cards: unknown key; known here: count, devices, "),
        ("devices.v100.speed", 1, "devices.v100.speed: unknown key; known here: like, gen"),
        ("devices.v100.peak_tflops.int8", 1, "peak_tflops.int8: unknown key; known here: fp64"),
        ("island.protocols.LL.lag", 1, "protocols.LL.lag: unknown key; known here: latency_us, e"),
        ("island.bandwidth_gbyte", "fast", "island.bandwidth_gbyte = 'fast': allowed: a valid n"),
        ("island.bandwidth_gbyte", -1, "island.bandwidth_gbyte = -1: allowed: greater than 0"),
        ("pcie", 3, "pcie = 3: expected a table [pcie]"),
        ("devices.v100.matmul_efficiency", 1.2, "matmul_efficiency = 1.2: allowed: "),
        ("devices.v100.processors", 0, "devices.v100.processors = 0: allowed: "),
        ("devices.v100.peak_tflops.bf16", -1.0, "peak_tflops.bf16 = -1.0: allowed: "),
        ("devices.v100.memory_gib", None, "devices.v100.memory_gib: missing"),
        ("nodes.0.devices", {"a100": 8}, "nodes.0.devices: no [devices.a100]; there are: v100"),
        ("nodes.0.devices_per_island", 3, "devices_per_island = 3: must divide the 8 devices"),
        ("nodes.0.devices_per_island", 4, "devices_per_island = 4: island.mesh must have as many"),
        ("nodes.0.devices_per_switch", 16, "devices_per_switch = 16: must divide the 8 devices"),
        ("nodes.0.nics", None, "nodes.0.nics: nics, nic_gbit and a table [network] go together"),
        ("island.mesh.0.1", 2, "island.mesh must be symmetric"),
        ("pcie.protocols", WAYS, "protocols differ (island: LL, LL128, Simple; pcie: Simple; "),
        ("collectives.algorithms", ["ring"], "collectives.algorithms: 'pairwise' is missing"),
        ("collectives.algorithms", ["rings"], "collectives.algorithms.0 = 'rings': allowed: "),
        ("collectives.algorithms", ["ring", "pairwise", "in-network"], "collectives.in_network: n"),
        (
            "network.tiers",
            [{"nodes_per_switch": 4}, {"nodes_per_switch": 6}],
            "network.tiers.1.nodes_per_switch = 6: must be a multiple of the 4",
        ),
        ("network.tiers", [{"oversubscription": 2}], "network.tiers.0.nodes_per_switch: missing"),
    ],
)
def test_bad_files_are_refused_in_one_line(place: str, value: Any, message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        parse_cluster(changed(place, value), "cluster.file = 'x.toml'")
    assert str(error.value).startswith("cluster.file = 'x.toml': ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("a = [", "not TOML: ")])
def test_unreadable_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExperimentError, match=message):
        resolve(load(None, [f"cluster.file={path}"]))


def test_all_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[devices.card]\nname = "RTX"\nmemory_gib = 24\n')
    with pytest.raises(ExperimentError) as error:
        read_cluster(path)
    message = str(error.value)
    assert message.startswith(f"cluster.file = '{path}': missing: devices.card.memory_bandwidth_gb")
    assert message.endswith("devices.card.peak_tflops.bf16 (or fp16), nodes.0.devices")
    assert "\n" not in message
    path.write_text("[devices.card]\nmemory = 24\n")  # what is misspelt is missing, too: say which
    with pytest.raises(ExperimentError, match=r"devices.card.memory: unknown key; did you mean me"):
        read_cluster(path)


def test_keys_are_those_that_are_said_or_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('like = "laptop"\nname = "mine"\n[host]\ncores = 8\n')
    found = read_cluster(path)
    keys = found.keys()
    assert (keys["host.cores"], keys["host.issue_us"], keys["nodes.0.devices.core"]) == (8, 20, 4)
    assert "host.cores" not in found.taken
    assert found.taken.keys() < keys.keys()


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (PRESETS / "dgx-v100.toml").read_bytes())
    assert read_cluster(path).tables.name == "dgx-v100"


@pytest.mark.parametrize(
    ("size", "link", "message"),
    [
        (9, 1, "devices_per_island = 9: island.mesh has at most 8 devices"),
        (4, 0, "island.mesh leaves devices without a link; they need a table [pcie]"),
    ],
)
def test_meshes_that_cannot_be_simulated(size: int, link: int, message: str) -> None:
    data = base()
    del data["pcie"]
    data["nodes"] = [{"devices": {"v100": size}, "nics": 1, "nic_gbit": 100}]
    mesh = [[0 if a == b else 1 for a in range(size)] for b in range(size)]
    mesh[0][1] = mesh[1][0] = link
    data["island"]["mesh"] = mesh
    with pytest.raises(ExperimentError) as error:
        parse_cluster(data, "x")
    assert message in str(error.value)

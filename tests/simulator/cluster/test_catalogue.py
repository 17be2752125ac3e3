"""Cluster files: what is read, uneven hardware, and what is refused."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulator import ExperimentError, load, predict
from simulator.cli.commands import app
from simulator.cluster.catalogue import load_preset, preset_names
from simulator.cluster.file import TABLES, ClusterFile, DeviceTable, parse_cluster
from simulator.cluster.resolve import resolve

DEVICE = """
[devices.{kind}]
name = "{kind}"
kind = "gpu"
memory_gib = {memory}
memory_bandwidth_gbyte = 1000
matmul_efficiency = 0.5
memory_efficiency = 0.5
attention_efficiency = 0.5
processors = 10
tile = 32
product_us = 1
kernel_us = 1
launch_us = 1
peak_tflops = {{ fp64 = 1, fp32 = {peak}, bf16 = 100, fp16 = 100 }}
"""
LINKS = """
[island]
bandwidth_gbyte = 100
protocols.Simple = { latency_us = 1, efficiency = 1.0 }
[network]
protocols.Simple = { latency_us = 5, efficiency = 1.0 }
"""
UNEVEN = f"""
name = "mixed"
source = "made up"
[[nodes]]
devices = {{ fast = 4 }}
nics = 4
nic_gbit = 80
[[nodes]]
devices = {{ slow = 2 }}
nics = 1
nic_gbit = 80
{DEVICE.format(kind="fast", memory=40, peak=40)}
{DEVICE.format(kind="slow", memory=10, peak=10)}
{LINKS}
"""


@pytest.fixture
def uneven(tmp_path: Path) -> str:
    path = tmp_path / "mixed.toml"
    path.write_text(UNEVEN)
    return f"cluster.file={path}"


def test_an_instruction_costs_what_its_own_device_takes(uneven: str) -> None:
    experiment = load(None, [uneven, "parallel.pipeline=6", "workload.layers=6"])
    cluster = resolve(experiment)
    assert [cluster.device_of(rank).name for rank in range(6)] == ["fast"] * 4 + ["slow"] * 2
    timeline = predict(experiment).timeline
    spans = {
        label: end - start
        for label, start, end in zip(timeline.labels(), timeline.start, timeline.end, strict=True)
    }
    launch = 1e-6
    assert spans["4F0"] > spans["2F0"] > launch
    assert cluster.peak_flops("fp32", 6) == pytest.approx((4 * 40e12 + 2 * 10e12) / 6)


def test_memory_is_that_of_the_device(uneven: str) -> None:
    plan = ["parallel.data=6", "parallel.pipeline=1", "workload.hidden=8192", "workload.layers=1",
            "workload.optimizer=adam"]  # fmt: skip
    (note,) = predict(load(None, [uneven, *plan])).notes
    assert note.startswith("does not fit: rank 4: ")
    assert note.endswith("on a device of 10 GiB")


@pytest.mark.parametrize("key", ["nodes=3", "devices_per_node=2", "node_bandwidth_gbit=10"])
def test_uneven_nodes_are_not_resized(uneven: str, key: str) -> None:
    name = key.partition("=")[0]
    with pytest.raises(ExperimentError, match=f"^cluster.{name}: nodes of cluster mixed differ"):
        resolve(load(None, [uneven, f"cluster.{key}"]))
    with pytest.raises(ExperimentError, match="has 2 × 2 or 4 = 6 devices"):
        resolve(load(None, [uneven, "parallel.data=7"]))


def test_one_source_of_the_cluster(uneven: str) -> None:
    with pytest.raises(ExperimentError, match=r"cluster\.file = .*: cluster\.preset is set too"):
        load(None, [uneven, "cluster.preset=laptop"])


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
        ("colour", 1, "colour: unknown key; known here: name, source, devices, nodes, island,"),
        ("island.bandwith", 1, "island.bandwith: unknown key; known here: bandwidth_gbyte, "),
        ("nodes.0.cards", 1, "nodes.0.cards: unknown key; known here: count, devices, "),
        ("devices.v100.speed", 1, "devices.v100.speed: unknown key; known here: name, kind"),
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


def test_without_a_network_there_is_one_node(tmp_path: Path) -> None:
    text = UNEVEN.split("[[nodes]]")[0] + "[[nodes]]\ndevices = { fast = 4 }\n"
    text += DEVICE.format(kind="fast", memory=40, peak=40) + LINKS.split("[network]")[0]
    (tmp_path / "one.toml").write_text(text)
    file = f"cluster.file={tmp_path / 'one.toml'}"
    assert resolve(load(None, [file, "parallel.data=2"])).nodes == 1
    with pytest.raises(ExperimentError, match="has 1 × 4 = 4 devices"):
        resolve(load(None, [file, "parallel.data=4"]))
    with pytest.raises(ExperimentError, match=r"has no \[network\]: one node only"):
        resolve(load(None, [file, "cluster.nodes=2"]))


def test_the_command_lists_every_preset() -> None:
    found = CliRunner().invoke(app, ["clusters", "--json"])
    rows = {row["name"]: row for row in json.loads(found.output)["clusters"]}
    assert sorted(rows) == preset_names()
    assert rows["dgx-a100-80gb"]["devices"] == {"A100-SXM4-80GB": 8}
    assert (rows["dgx2"]["nics"], rows["dgx2"]["nic_gbit"]) == (8, 100)
    assert rows["dgx-v100"]["mesh"]
    assert all(row["source"] for row in rows.values())
    table = CliRunner().invoke(app, ["clusters"]).output
    assert all(name in table for name in rows)


def test_units_of_a_file() -> None:
    cluster = load_preset("dgx-h100")
    assert cluster.topology.pcie.bandwidth == 63e9
    assert cluster.library.in_network.latency_s == pytest.approx(94e-6)
    assert cluster.library.copy_bandwidth == 1.2e12
    assert cluster.topology.nodes[0].bandwidth == 400e9


def test_the_example_in_the_documents(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "clusters.md").read_text("utf-8")
    path = tmp_path / "mixed.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])
    found = predict(load(None, [f"cluster.file={path}", "parallel.data=4"]))
    assert [found.cluster.topology.kind(rank) for rank in range(8)] == ["a100"] * 2 + ["h100"] * 6
    for table in ("devices.KIND", "nodes", "island", "network.tiers", "collectives", "host"):
        assert f"[{table}]" in text


def test_every_key_is_in_the_documents() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "clusters.md").read_text("utf-8")
    tables = [ClusterFile, DeviceTable, *TABLES.values()]
    keys = {key for table in tables for key in table.model_fields} - {"peak_tflops"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"{key}]" not in text] == []

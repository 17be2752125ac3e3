"""Clusters built from files: units, uneven hardware, and what an experiment may change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator import ExperimentError, load, predict
from simulator.cluster.catalogue import load_preset
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
matmul_us = 1
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
    *_, note = predict(load(None, [uneven, *plan])).notes
    assert " of 10.7 GB on the fullest device (rank 4): does not fit, " in note


@pytest.mark.parametrize("key", ["nodes=3", "devices_per_node=2", "node_bandwidth_gbit=10"])
def test_uneven_nodes_are_not_resized(uneven: str, key: str) -> None:
    name = key.partition("=")[0]
    with pytest.raises(ExperimentError, match=f"^cluster.{name}: nodes of cluster mixed differ"):
        resolve(load(None, [uneven, f"cluster.{key}"]))
    with pytest.raises(ExperimentError, match="has 2 × 2 or 4 = 6 devices"):
        resolve(load(None, [uneven, "parallel.data=7"]))


@pytest.mark.parametrize("key", ["nodes", "devices_per_node"])
def test_a_cluster_has_one_node_and_device_at_least(key: str) -> None:
    with pytest.raises(ExperimentError, match=f"^cluster.{key} = 0: allowed: 1 or more"):
        load_preset("dgx-h100").resized(**{key: 0})


def test_one_source_of_the_cluster(uneven: str) -> None:
    with pytest.raises(ExperimentError, match=r"cluster\.file = .*: cluster\.preset is set too"):
        load(None, [uneven, "cluster.preset=laptop"])


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


def test_units_of_a_file() -> None:
    cluster = load_preset("dgx-h100")
    assert cluster.topology.pcie.bandwidth == 63e9
    assert cluster.library.in_network.latency_s == pytest.approx(94e-6)
    assert cluster.library.copy_bandwidth == 1.2e12
    assert cluster.topology.nodes.first.bandwidth == 400e9


def test_the_example_in_the_documents(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "clusters.md").read_text("utf-8")
    path = tmp_path / "mixed.toml"
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path.write_text(next(block for block in blocks if 'name = "mixed"' in block))
    found = predict(load(None, [f"cluster.file={path}", "parallel.data=4"]))
    assert [found.cluster.topology.kind(rank) for rank in range(8)] == ["a100"] * 2 + ["h100"] * 6
    for table in ("devices.KIND", "nodes", "island", "network.tiers", "collectives", "host"):
        assert f"[{table}]" in text

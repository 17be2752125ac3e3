"""Cluster files that say little: what is required, what is taken instead, and from where."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from simulator import ExperimentError, load, predict
from simulator.cluster.build import cluster_of
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.completion import Completion, leaves
from simulator.cluster.file import CheckedFile, parse_cluster
from simulator.cluster.preset_files import preset_names, preset_tables

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "clusters.md").read_text("utf-8")
CARD = """
memory_gib = 24
memory_bandwidth_gbyte = 936
processors = 82
peak_tflops = { fp32 = 35.6, bf16 = 71 }
"""
PAIR = f"[[nodes]]\ndevices = {{ card = 2 }}\n[pcie]\nbandwidth_gbyte = 16\n[devices.card]\n{CARD}"
NEEDED = ["memory_gib", "memory_bandwidth_gbyte", "processors", "peak_tflops.fp32"]


def example(beginning: str) -> str:
    (found,) = (b for b in re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL) if beginning in b)
    return found


def read(text: str) -> CheckedFile:
    found = Completion(tomllib.loads(text), "mine", "x")
    return parse_cluster(found.tables, "x", found.taken, found.needed)


def machine(text: str) -> Cluster:
    return cluster_of(read(text))


def refusal(text: str) -> str:
    with pytest.raises(ExperimentError) as error:
        read(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def missing(text: str) -> set[str]:
    (shown,) = re.findall("^x: missing: (.*)$", refusal(text))
    return set(shown.split(", "))


def test_the_minimal_file_of_the_documents(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(example("rtx3090"))
    plan = ["parallel.data=2", "parallel.pipeline=1", "workload.dtype=bf16"]
    prediction = predict(load(None, [f"cluster.file={tmp_path / 'mine.toml'}", *plan]))
    assert prediction.cluster.name == "mine"
    assert prediction.cluster.device.name == "rtx3090"
    (note,) = [note for note in prediction.notes if "were taken" in note]
    assert note.startswith(f"{len(prediction.cluster.taken)} figures of cluster mine are not in")
    assert "(as dgx-a100-80gb); `twinline clusters FILE` shows them" in note


def test_what_no_data_sheet_has_is_that_of_the_generation() -> None:
    for generation, preset in (("turing", "dgx-v100"), ("blackwell", "dgx-h100")):
        found = machine(PAIR.replace(CARD, f"{CARD}generation = '{generation}'"))
        theirs = load_preset(preset)
        for constant in ("matmul_efficiency", "memory_efficiency", "launch_s", "tile"):
            assert getattr(found.device, constant) == getattr(theirs.device, constant)
        assert found.device.processors == 82
        assert found.topology.pcie.protocols == theirs.topology.pcie.protocols
        assert found.library.start_s == theirs.library.start_s
        assert "in-network" not in found.library.algorithms
        assert found.taken["devices.card.tile"] == f"as {preset}"
        assert "devices.card.generation" not in found.taken
    assert read(PAIR).taken["devices.card.generation"] == "default"


@pytest.mark.parametrize(
    ("said", "generation", "rates"),
    [
        ("fp32 = 32, bf16 = 70", "ampere", {"fp64": 0.5, "fp32": 32, "bf16": 70, "fp16": 70}),
        ("fp32 = 32, fp16 = 70", "ada", {"fp64": 0.5, "fp32": 32, "bf16": 70, "fp16": 70}),
        ("fp32 = 8, fp16 = 65", "turing", {"fp64": 0.125, "fp32": 8, "bf16": 8, "fp16": 65}),
    ],
)
def test_rates_that_follow_from_others(said: str, generation: str, rates: dict[str, float]) -> None:
    text = PAIR.replace("fp32 = 35.6, bf16 = 71", said) + f"generation = '{generation}'"
    found = machine(text).device.peak_flops
    assert found == {dtype: pytest.approx(rate * 1e12) for dtype, rate in rates.items()}


def test_cards_without_peer_access_are_staged() -> None:
    near = machine(PAIR)
    far = machine(PAIR.replace("= 16", "= 16\npeer_access = false"))
    for name, way in near.topology.pcie.protocols.items():
        staged = far.topology.pcie.protocols[name]
        assert staged.efficiency == pytest.approx(way.efficiency * 0.4177, rel=0.01)
        assert far.taken[f"pcie.protocols.{name}.efficiency"].endswith(", without peer access")
    ways = "peer_access = false\nprotocols.Simple = { latency_us = 1, efficiency = 0.5 }"
    assert "pcie.peer_access = false: says which protocols" in refusal(
        PAIR.replace("= 16", f"= 16\n{ways}")
    )


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", ["nodes.0.devices", *(f"devices.KIND.{key}" for key in NEEDED)]),
        (
            "nodes = [{ devices = { a = 2, b = 1 }, count = 2 }]",
            [
                *(f"devices.{kind}.{key}" for kind in "ab" for key in NEEDED),
                *("pcie.bandwidth_gbyte", "nodes.0.nic_gbit"),
            ],
        ),
        (
            "nodes = [{ devices = { a = 1 } }]\n[devices.a]\nmemory_gib = 1",
            [f"devices.a.{key}" for key in NEEDED if key != "memory_gib"],
        ),
    ],
)
def test_all_missing_keys_are_named_in_one_round(text: str, places: list[str]) -> None:
    rates = {place.replace("fp32", "bf16 (or fp16)") for place in places if place.endswith("fp32")}
    assert missing(text) == {*places, *rates}


def test_one_missing_key() -> None:
    assert refusal(PAIR.replace("processors = 82", "")) == "x: devices.card.processors: missing"
    assert refusal(PAIR.replace("bandwidth_gbyte = 16", "")) == "x: pcie.bandwidth_gbyte: missing"
    several = PAIR.replace("{ card = 2 }", "{ card = 2 }\ncount = 2")
    assert refusal(several) == "x: nodes.0.nic_gbit: missing"
    joined = machine(several.replace("count = 2", "count = 2\nnic_gbit = 10"))
    assert (
        joined.topology.network.protocols == load_preset("dgx-a100-80gb").topology.network.protocols
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes = 3", "nodes: expected one table or more: [[nodes]]"),
        ("[nodes]\ndevices = { card = 2 }", "nodes: expected one table or more: [[nodes]]"),
        ("devices = 3", "devices = 3: expected a table [devices]"),
        (PAIR.replace("{ card = 2 }", "{ cart = 2 }"), "nodes.0.devices: no [devices.cart]; there"),
        (PAIR + f"[devices.other]\n{CARD}", "devices.other: no node has it; nodes have: card"),
        (PAIR + "like = 'h10'", "devices.card.like = 'h10': did you mean 'dgx-h100'? allowed: "),
        (f"like = 'tower'\n{PAIR}", "like = 'tower': allowed: a100-pcie, "),
        (f"like = 3\n{PAIR}", "like = 3: allowed: a valid string"),
        (PAIR + "generation = 'pascal'", "devices.card.generation = 'pascal': allowed: 'volta', "),
        (
            "like = 'h100'\n[[nodes]]\ndevices = { h100 = 3 }",
            "devices_per_switch = 2: must divide the 3 devices of a node (what is not said is that",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert message in refusal(text)


def same(one: Cluster, other: Cluster) -> bool:
    return (one.topology, one.kinds, one.library) == (other.topology, other.kinds, other.library)


@pytest.mark.parametrize("name", preset_names())
def test_a_file_that_says_only_what_it_is_like(name: str) -> None:
    found = machine(f"like = '{name}'")
    assert same(found, load_preset(name))
    assert set(found.taken.values()) == {f"like {name}"}


def test_a_preset_says_everything_itself() -> None:
    for name in preset_names():
        said = preset_tables(name)
        found = Completion(said, "x", "x")
        assert (found.tables, found.taken, found.needed) == (said, {}, [])


def test_like_takes_what_is_not_said() -> None:
    found = machine(example('like = "a100"'))
    theirs = load_preset("dgx-a100-80gb")
    assert found.kinds == theirs.kinds
    assert found.topology.island == theirs.topology.island
    node = found.topology.nodes.first
    assert (len(node.devices), node.nics, node.nic_bandwidth) == (4, 4, 25e9)
    assert "nodes.0.nics" not in found.taken
    assert found.taken["nodes.0.nic_gbit"] == "like dgx-a100-80gb"


def test_a_device_like_that_of_a_preset() -> None:
    text = "[[nodes]]\ndevices = { card = 2 }\n[pcie]\nbandwidth_gbyte = 16\n[devices.card]\n"
    found = machine(f"{text}like = 'h100'\nmemory_gib = 94")
    theirs = load_preset("dgx-h100")
    assert found.device.memory_bytes == 94 * 2**30
    assert found.device.name == "card"
    assert found.device.peak_flops == theirs.device.peak_flops
    assert found.topology.island is None
    assert found.topology.pcie.protocols == theirs.topology.pcie.protocols
    other = machine(f"{text}like = 'h100'\ngeneration = 'ampere'")
    assert other.device.matmul_efficiency == load_preset("dgx-a100-80gb").device.matmul_efficiency
    assert other.device.memory_bandwidth == theirs.device.memory_bandwidth


def test_protocols_that_are_said_name_those_of_all_links() -> None:
    simple = "[island]\nbandwidth_gbyte = 56\nprotocols.{} = {{ latency_us = 2, efficiency = 1 }}\n"
    pairs = PAIR.replace("card = 2 }", "card = 4 }\ndevices_per_island = 2")
    found = machine(simple.format("Simple") + pairs)
    assert list(found.topology.pcie.protocols) == ["Simple"]
    assert refusal(simple.format("TCP") + pairs) == "x: pcie.protocols: missing"


def test_cores_have_the_constants_of_the_laptop() -> None:
    cores = PAIR.replace("processors = 82", "kind = 'cpu'").replace("[pcie]", "[island]")
    found = machine(cores)
    assert found.device.processors == 1
    assert found.device.matmul_efficiency == load_preset("laptop").device.matmul_efficiency
    assert list(found.topology.island.protocols) == ["TCP"]


def test_leaves() -> None:
    value: Any = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 3}]}
    assert leaves(value, "") == {"a.b": 1, "a.c": [1, 2], "d.0.e": 3}

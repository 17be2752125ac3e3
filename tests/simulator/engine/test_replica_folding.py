"""Identical peers are simulated once, and nothing but the effort shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator import Prediction, load, lower, predict
from simulator.analysis.memory_fit import MemoryFit, memory_fit
from simulator.analysis.metrics import rank_metrics
from simulator.charts.timeline import timeline_figure
from simulator.cluster.catalogue import load_preset
from simulator.cluster.cluster import Cluster
from simulator.cluster.nodes import Nodes
from simulator.cluster.resolve import resolve
from simulator.cluster.topology import Tier
from simulator.engine.replica_folding import folding_of, lists_of
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh
from simulator.experiment.section import ExperimentError
from simulator.prediction import EACH_UP_TO
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.timeline.expansion import expanded
from simulator.timeline.timeline import MemorySamples, Timeline
from simulator.timeline.trace import load_trace, save_trace
from written_out import written_out

MODEL = ["workload.layers=8", "workload.hidden=64", "workload.sequence=16", "workload.dtype=bf16"]


SERVERS = ("data_style=parameter-server", "servers=3", "bucket_mb=0.05")


def plan(*parallel: str, preset: str = "dgx-a100-80gb", more: tuple[str, ...] = ()) -> Any:
    given = [f"parallel.{setting}" for setting in parallel]
    model = [] if "workload.model=unit" in more else MODEL
    return load(None, [*model, f"cluster.preset={preset}", *given, *more])


def both(experiment: Experiment, cluster: Cluster | None = None) -> tuple[Prediction, Prediction]:
    """The prediction from all ranks, and the one from those that stand for them."""
    cluster = cluster or resolve(experiment)
    folding = folding_of(experiment, cluster)
    assert folding is not None
    whole, folded = lower(experiment), lower(experiment, folding.list_of)
    assert folded.is_folded
    # Without calls, so step by step: leaps round sums in another order.
    return (
        predict(experiment, cluster, written_out(whole)),
        predict(experiment, cluster, written_out(folded)),
    )


def assert_same(whole: Prediction, folded: Prediction) -> None:
    """Times and memory of every rank are compared, and the figures and hash of all."""
    found, expected = expanded(folded.recorded, folded.program.list_of), whole.timeline
    time = expected.iteration_time
    for name in ("rank", "microbatch"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    for name in ("posted", "start", "end"):
        assert np.abs(getattr(found, name) - getattr(expected, name)).max() <= 1e-9 * time, name
    for mine, theirs in zip(found.memory, expected.memory, strict=True):
        assert mine.peak_parts == theirs.peak_parts
        assert mine.nbytes.tolist() == theirs.nbytes.tolist()
    complete, partial = whole.to_json(), folded.to_json()
    mine = {row["rank"]: row for row in partial["ranks"]}
    for row in complete["ranks"]:
        for key, value in mine.get(row["rank"], row).items():
            if isinstance(value, float):
                assert value == pytest.approx(row[key], rel=1e-9, abs=1e-9 * time)
            else:
                assert value == row[key]
    assert folded.program.hash() == whole.program.hash()
    # Bytes by link are those of all ranks, or not given.
    assert partial["links"] in (None, complete["links"])
    for key in complete.keys() - {"ranks", "ranks_simulated", "notes", "links"}:
        same = isinstance(complete[key], float)
        assert partial[key] == (pytest.approx(complete[key]) if same else complete[key]), key


@pytest.mark.parametrize(
    ("parallel", "more"),
    [
        (("data=16", "pipeline=1", "bucket_mb=0.05", "microbatches=2"), ()),
        (("data=4", "pipeline=4", "schedule=gpipe"), ("workload.optimizer=momentum",)),
        (("data=4", "pipeline=4", "schedule=1f1b", "bucket_mb=0.05"), ("workload.clip_norm=1",)),
        (
            ("data=3", "pipeline=8", "schedule=interleaved-1f1b", "virtual_stages=2",
             "microbatches=8", "bucket_mb=0.05"),
            ("workload.clip_norm=1", "workload.optimizer=adam", "workload.layers=16"),
        ),
        (("data=4", "pipeline=4", "schedule=zb-h1", "bucket_mb=0.1", "microbatches=8"), ()),
        (("data=4", "pipeline=2", "schedule=dualpipe-v", "virtual_stages=2"), ()),
        (("data=4", "pipeline=4", "schedule=pipedream"), ("workload.optimizer=adam",)),
        (("data=2", "pipeline=16", "schedule=eager-1f1b"), ("workload.layers=16",)),
        (("data=4", "pipeline=4"), ("workload.model=unit", "workload.p2p=0.25")),
        (("data=12", "pipeline=1", *SERVERS), ("workload.optimizer=adam",)),
        (("data=4", "pipeline=2", "tensor=2", "sequence_parallel=true", *SERVERS), ()),
        (("data=4", "pipeline=2", "tensor=2", "bucket_mb=0.05"), ("workload.clip_norm=1",)),
        (("data=2", "tensor=4", "sequence_parallel=true", "zero=1"), ("workload.dtype=fp16",)),
        (("data=8", "pipeline=2", "zero=3", "zero_group=4", "bucket_mb=0.1"), ()),
        (("data=2", "pipeline=2", "context=4"), ("workload.model=bert",)),
        (("data=2", "context=2", "tensor=2", "context_style=ulysses", "zero=1"), ()),
        (
            ("data=2", "pipeline=2", "tensor=2", "virtual_stages=2", "sequence_parallel=true",
             "schedule=interleaved-1f1b"),
            ("workload.model=bert",),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("preset", ["dgx-a100-80gb", "dgx-h100"])
def test_nothing_changes(preset: str, parallel: tuple[str, ...], more: tuple[str, ...]) -> None:
    assert_same(*both(plan("microbatches=4", *parallel, preset=preset, more=more)))


@pytest.mark.parametrize(
    ("devices_per_node", "lists"),
    # a pipeline on one node, cards alike; else by where a node begins in a pipeline
    [(1, 3), (2, 6), (3, 3), (4, 12), (6, 3), (12, 3)],
)
def test_replicas_that_do_not_fill_nodes_are_of_a_few_classes(
    devices_per_node: int, lists: int
) -> None:
    experiment = plan(
        *("data=16", "pipeline=3", "microbatches=4", "bucket_mb=0.05"),
        more=(f"cluster.devices_per_node={devices_per_node}", "workload.clip_norm=1"),
    )
    whole, folded = both(experiment)
    assert folded.program.num_ranks == lists
    assert_same(whole, folded)


def test_a_period_of_nodes_is_simulated() -> None:
    """Replicas of 12 ranks on nodes of 8: every second one begins in the middle of a node."""
    experiment = plan(
        *("data=16", "tensor=2", "pipeline=6", "microbatches=4"),
        preset="dgx-h100",
        more=("cluster.nodes=24", "workload.layers=12"),
    )
    whole, folded = both(experiment)
    assert folded.program.members == [*range(0, 24, 2)]
    assert folded.program.counts == [16] * 12
    assert_same(whole, folded)


@pytest.mark.parametrize(
    ("parallel", "lists"),
    [
        (("data=66", "pipeline=1", "zero=1", "zero_group=2"), 2),  # the last node has two ranks
        (("data=64", "pipeline=2", "zero=3", "zero_group=4"), 2),
        (("data=4", "context=2", "pipeline=1", "zero=2", "zero_group=4"), 1),
    ],
)
def test_shard_sets_that_are_placed_alike_are_simulated_once(
    parallel: tuple[str, ...], lists: int
) -> None:
    whole, folded = both(plan(*parallel, "microbatches=2"))
    assert folded.program.num_ranks == lists
    assert_same(whole, folded)


def test_trainers_are_simulated_once_and_servers_each() -> None:
    """Trainers beside a server share its node's uplinks, and are of a class of their own."""
    served = ("data_style=parameter-server", "servers=2", "pipeline=1", "bucket_mb=0.05")
    whole, folded = both(plan("data=32", *served, "microbatches=2"))
    assert folded.program.members == [0, 32, 33]
    assert folded.program.counts == [32, 1, 1]
    assert_same(whole, folded)
    whole, folded = both(plan("data=30", *served, "microbatches=2"))
    assert folded.program.members == [0, 24, 30, 31]
    assert_same(whole, folded)


def test_nodes_with_slower_cards_are_told_apart() -> None:
    """Every second node has cards of a tenth; nothing else differs."""
    experiment = plan("data=16", "pipeline=2", "microbatches=4", more=("cluster.nodes=4",))
    cluster = resolve(experiment)
    node = cluster.topology.nodes.first
    slow = replace(node, nic_bandwidth=node.nic_bandwidth / 10)
    topology = replace(cluster.topology, nodes=Nodes.of([node, slow] * 2))
    whole, folded = both(experiment, replace(cluster, topology=topology))
    assert folded.program.num_ranks == 4
    assert_same(whole, folded)


DEGREES = ("data", "pipeline", "expert", "context", "tensor")


@settings(max_examples=35, deadline=None)
@given(st.data())
def test_folded_is_unfolded_whatever_the_plan_and_the_cluster(data: st.DataObject) -> None:
    """Times of every rank are equal, wherever nodes begin and whoever shares a link."""
    draw = data.draw
    sizes = [draw(st.sampled_from(known)) for known in
             ((1, 2, 3, 4, 5, 8), (1, 2, 3), (1, 1, 2), (1, 1, 2), (1, 2))]  # fmt: skip
    degrees = dict(zip(DEGREES, sizes, strict=True))
    world = int(np.prod(sizes))
    assume(1 < world <= 48)
    preset = draw(st.sampled_from(["dgx-h100", "dgx-a100-80gb", "a100-pcie", "dgx-v100"]))
    per_node = draw(st.integers(1, 8))
    order = list(draw(st.permutations(AXES)))
    more = [f"cluster.devices_per_node={per_node}", f"parallel.rank_order={json.dumps(order)}"]
    if degrees["expert"] > 1:
        more += ["workload.model=moe-gpt", "workload.experts=2"]
    elif draw(st.booleans()):
        more += ["workload.model=llama", f"workload.kv_heads={draw(st.sampled_from([1, 2]))}"]
        more += ["workload.tie_embeddings=true"] if draw(st.booleans()) else []
    zero = draw(st.integers(0, 3))
    if draw(st.booleans()):
        zero = 0
        more += ["parallel.data_style=parameter-server"]
        more += [f"parallel.servers={draw(st.integers(1, 3))}"]
    replicas = degrees["data"] * degrees["context"] * degrees["expert"]
    if zero and replicas > 1 and (degrees["pipeline"] == 1 or zero == 1):
        parts = [n for n in range(2, replicas + 1) if replicas % n == 0]
        more += [f"parallel.zero={zero}", f"parallel.zero_group={draw(st.sampled_from(parts))}"]
    flags = ("workload.clip_norm=1", "parallel.bucket_mb=0.05", "workload.hidden=1024")
    more += [flag for flag in flags if draw(st.booleans())]
    if degrees["tensor"] > 1 and draw(st.booleans()):
        more += ["parallel.sequence_parallel=true"]
    given_degrees = [f"{axis}={size}" for axis, size in degrees.items()]
    try:
        experiment = plan("microbatches=3", *given_degrees, preset=preset, more=tuple(more))
        cluster = resolve(experiment)
    except ExperimentError:
        assume(False)
    if cluster.nodes > 1 and draw(st.booleans()):
        tier = Tier(nodes_per_switch=draw(st.integers(1, 3)), oversubscription=4.0)
        cluster = replace(cluster, topology=replace(cluster.topology, tiers=(tier,)))
    assume(folding_of(experiment, cluster) is not None)
    try:
        lower(experiment)
    except ExperimentError:
        assume(False)  # more servers than buckets
    assert_same(*both(experiment, cluster))


def test_large_plans_are_folded_and_say_so(tmp_path: Path) -> None:
    experiment = plan("data=64", "pipeline=8", "microbatches=8")
    found = predict(experiment)
    assert found.program.members == list(range(8))
    assert found.metrics.program.ranks == found.program.world_size == 512
    assert found.metrics.program.instructions == 64 * len(found.program)
    assert found.to_json()["ranks_simulated"] == len(found.ranks) == 8
    note = "512 ranks; 8 differ and were simulated, the others equal them"
    assert found.notes == json.loads(json.dumps(found.to_json()))["notes"] == [note]
    assert len(found.staleness) == 8
    assert found.bubble_fraction > 0


def test_what_costs_effort_does_not_depend_on_the_number_of_replicas() -> None:
    lengths = {
        len(predict(plan(f"data={n}", "pipeline=4", "bucket_mb=0.1")).program) for n in (2, 8, 998)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize(("ranks", "shown"), [(2, 2), (EACH_UP_TO, EACH_UP_TO), (72, 1)])
def test_of_small_plans_every_rank_is_shown(ranks: int, shown: int) -> None:
    experiment = plan(f"data={ranks}", "pipeline=1")
    found = predict(experiment)
    assert found.program.num_ranks == found.recorded.num_ranks == 1
    assert found.to_json()["ranks_simulated"] == 1
    assert [row.rank for row in found.ranks] == found.timeline.members == [*range(shown)]
    assert len(found.notes) == (shown != ranks)
    assert found.metrics.program.instructions == ranks * len(found.program)


def test_without_peers_there_is_nothing_to_fold() -> None:
    experiment = plan("pipeline=128", more=("workload.layers=128",))
    assert folding_of(experiment, resolve(experiment)) is None


def test_ranks_that_share_cores_are_all_simulated() -> None:
    experiment = plan("data=66", "pipeline=1", preset="laptop")
    assert folding_of(experiment, resolve(experiment)) is None
    found = predict(experiment)
    assert found.program.num_ranks == len(found.ranks) == 66
    assert not any("simulated" in note for note in found.notes)


def test_what_is_run_and_printed_is_whole() -> None:
    assert lower(plan("data=33", "pipeline=2")).num_ranks == 66


def test_another_number_of_replicas_is_another_program() -> None:
    """Even where nothing in the lists tells: `unit` has no gradients to reduce."""
    hashes = {
        predict(plan(f"data={n}", "pipeline=2", more=("workload.model=unit",))).program.hash()
        for n in (1, 2, 3)
    }
    assert len(hashes) == 3


@pytest.fixture
def every_16th() -> Timeline:
    """One message between ranks 0 and 16, and rank 32, that has most to hold."""
    message = {"tensor": "x", "nbytes": 4}
    lists = [
        [Instruction(Task(Op.SEND, 0, stream=Stream.send(16), peer=16, **message))],
        [Instruction(Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, **message))],
        [Instruction(Task(Op.FORWARD, 2))],
    ]
    held = [MemorySamples(np.zeros(1), np.array([n << 40])) for n in (1, 2, 3)]
    return Timeline.of_program(
        Program(lists, list_of=[rank // 16 for rank in range(48)]),
        *(np.zeros(3), np.zeros(3), np.ones(3)),
        memory=held,
    )


def test_figures_pictures_and_notes_name_global_ranks(
    every_16th: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rank_metrics(every_16th)
    assert [(row.rank, row.peak_memory_bytes >> 40) for row in rows] == [
        (0, 1),
        (16, 2),
        (32, 3),
    ]
    fit = memory_fit(every_16th, load_preset("dgx-h100").resized(nodes=5))
    assert fit == MemoryFit((32,), 3 << 40, 80 << 30, "device")
    timeline_figure(every_16th).save(tmp_path / "out.svg")
    picture = (tmp_path / "out.svg").read_text()
    assert [f"<!-- rank {n} -->" in picture for n in (0, 1, 2, 16, 32)] == [1, 0, 0, 1, 1]


def test_traces_name_global_ranks_and_load_back(every_16th: Timeline, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    save_trace(every_16th, path)
    found = load_trace(path)
    assert found.members == every_16th.members
    assert found.rank.tolist() == every_16th.rank.tolist() == [0, 1, 2]
    assert found.labels() == every_16th.labels()
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {0, 16, 32}
    assert [event["pid"] for event in events if event["ph"] in "sf"] == [0, 16]


def test_the_trace_of_a_folded_prediction_loads_back(tmp_path: Path) -> None:
    found = predict(plan("data=36", "pipeline=2")).timeline
    save_trace(found, tmp_path / "trace.json")
    loaded = load_trace(tmp_path / "trace.json")
    assert (loaded.members, loaded.counts, loaded.meta) == ([0, 1], [36, 36], found.meta)
    assert loaded.end.tobytes() == found.end.tobytes()


def test_positions_with_equal_slices_share_a_list() -> None:
    """Every second of 4 data positions is alike; the 2 tensor ranks are not."""
    mesh = Mesh(data=4, tensor=2)
    assert lists_of(mesh, np.array([0, 1, 2, 3, 0, 1, 2, 3])) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert lists_of(mesh, np.zeros(8, dtype=int)) == [0] * 8
    assert lists_of(mesh, np.arange(8)) == [*range(8)]

"""Identical peers are simulated once, and nothing but the effort shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import Prediction, load, lower, predict
from simulator.analysis.memory_fit import MemoryFit, memory_fit
from simulator.analysis.metrics import rank_metrics
from simulator.charts.timeline import timeline_figure
from simulator.cluster.catalogue import load_preset
from simulator.cluster.resolve import resolve
from simulator.engine.replica_folding import can_fold, folds, peers_are_placed_alike
from simulator.experiment.mesh import AXES, Mesh
from simulator.prediction import EACH_UP_TO
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.timeline.timeline import MemorySamples, Timeline
from simulator.timeline.trace import load_trace, save_trace
from written_out import written_out

MODEL = ["workload.layers=8", "workload.hidden=64", "workload.sequence=16", "workload.dtype=bf16"]
TIMES = ("posted", "start", "end")


def plan(*parallel: str, preset: str = "dgx-a100-80gb", more: tuple[str, ...] = ()) -> Any:
    given = [f"parallel.{setting}" for setting in parallel]
    model = [] if "workload.model=unit" in more else MODEL
    return load(None, [*model, f"cluster.preset={preset}", *given, *more])


def both(experiment) -> tuple[Prediction, Prediction]:
    """The prediction from all ranks and the one from the representatives."""
    cluster = resolve(experiment)
    assert can_fold(experiment, cluster)
    whole, folded = lower(experiment), lower(experiment, fold=True)
    assert folded.is_folded
    assert not whole.is_folded
    # Without calls, so step by step: leaps round sums in another order.
    return (
        predict(experiment, cluster, written_out(whole)),
        predict(experiment, cluster, written_out(folded)),
    )


def assert_same(whole: Prediction, folded: Prediction) -> None:
    """Exact, but for the rounding of the sum over ranks in the bubble."""
    mesh = whole.experiment.mesh
    complete, partial = whole.to_json(), folded.to_json()
    for row, representative in enumerate(folded.program.members):
        mine = folded.recorded.rank == row
        place = mesh.coordinate(representative)["pipeline"]
        for peer in range(mesh.world_size):
            if mesh.coordinate(peer)["pipeline"] == place:
                theirs = whole.timeline.rank == peer
                for name in TIMES:
                    found = getattr(folded.recorded, name)[mine]
                    assert found.tobytes() == getattr(whole.timeline, name)[theirs].tobytes()
                held, expected = folded.recorded.memory[row], whole.timeline.memory[peer]
                assert held.times.tobytes() == expected.times.tobytes()
                assert held.nbytes.tobytes() == expected.nbytes.tobytes()
                assert held.peak_parts == expected.peak_parts
    assert folded.program.hash() == whole.program.hash()
    if mesh.world_size <= EACH_UP_TO:
        assert partial["ranks"] == complete["ranks"]
    else:
        rows = [complete["ranks"][rank] for rank in folded.program.members]
        assert partial["ranks"] == rows
    differ = {"bubble_fraction", "bubble_ratio", "ranks", "ranks_simulated", "notes"}
    for key in complete.keys() - differ:
        assert partial[key] == complete[key], key
    for key in ("bubble_fraction", "bubble_ratio"):
        assert partial[key] == pytest.approx(complete[key], rel=1e-12)


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


@pytest.mark.parametrize("devices_per_node", range(1, 14))
def test_nothing_changes_wherever_peers_are_placed_alike(devices_per_node: int) -> None:
    experiment = plan(
        *("data=4", "pipeline=3", "microbatches=4", "bucket_mb=0.05"),
        more=(f"cluster.devices_per_node={devices_per_node}", "workload.clip_norm=1"),
    )
    alike = can_fold(experiment, resolve(experiment))
    assert alike == (devices_per_node in (1, 3, 6, 12))  # a pipeline on one node, cards alike
    if alike:
        assert_same(*both(experiment))


def test_where_peers_are_placed_otherwise_folding_would_be_wrong() -> None:
    """Four devices a node and pipelines of three: replica 0 fits in a node, replica 1 does not."""
    experiment = plan(
        *("data=33", "pipeline=3", "microbatches=4"), more=("cluster.devices_per_node=4",)
    )
    found = predict(experiment)
    assert not found.program.is_folded
    assert found.program.num_ranks == len(found.ranks) == 99
    wrong = predict(experiment, program=lower(experiment, fold=True))
    assert wrong.iteration_time_s < found.iteration_time_s


@pytest.mark.parametrize(
    ("parallel", "alike"),
    [
        (("data=66", "pipeline=1", "zero=1", "zero_group=2"), True),
        (("data=64", "pipeline=2", "zero=3", "zero_group=4"), True),
        # three neighbours are on one node of eight, or on two
        (("data=66", "pipeline=1", "zero=1", "zero_group=3"), False),
        (("data=66", "pipeline=1", "zero=3", "zero_group=6"), False),
        # sets of three of 0, 1, 4, 5, 8, 9 are not equally spaced
        (("data=36", "pipeline=2", "context=2", "zero=1", "zero_group=3"), False),
    ],
)
def test_shard_sets_are_placed_alike_or_simulated_whole(
    parallel: tuple[str, ...], alike: bool
) -> None:
    experiment = plan(*parallel, "microbatches=2")
    cluster = resolve(experiment)
    assert folds(experiment, cluster) == can_fold(experiment, cluster) == alike
    whole = predict(experiment, cluster, lower(experiment))
    if alike:
        assert_same(whole, predict(experiment, cluster))
    found = predict(experiment, cluster).timeline.iteration_time
    assert found == whole.timeline.iteration_time


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=5, max_size=5), st.integers(1, 12), st.data())
def test_peers_that_are_placed_alike_pay_alike(sizes: list[int], per_node: int, data) -> None:
    """Of every rank, groups along any axes and messages along the pipeline cost the same as
    those of the representative at the same place of the pipeline."""
    order = data.draw(st.permutations(AXES))
    mesh = Mesh(order, **dict(zip(AXES, sizes, strict=True)))
    nodes = -(-mesh.world_size // per_node)
    cluster = load_preset("dgx-h100").resized(nodes=nodes, devices_per_node=per_node)
    along = data.draw(st.sets(st.sampled_from(AXES), min_size=1))

    def costs(rank: int) -> tuple[float, list[float]]:
        peers = mesh.group(rank, "pipeline")
        return (
            cluster.collective("ALL_REDUCE", mesh.group(rank, *along), 1000).mean_s,
            [cluster.message(rank, peer, 1000).mean_s for peer in peers if peer != rank],
        )

    if peers_are_placed_alike(mesh, cluster):
        for rank in range(mesh.world_size):
            representative = mesh.representatives()[mesh.coordinate(rank)["pipeline"]]
            assert costs(rank) == costs(representative)


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
        len(lower(plan(f"data={n}", "pipeline=4", "bucket_mb=0.1"), fold=True)) for n in (2, 8, 999)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize(("ranks", "shown"), [(2, 2), (EACH_UP_TO, EACH_UP_TO), (72, 1)])
def test_of_small_plans_every_rank_is_shown(ranks: int, shown: int) -> None:
    experiment = plan(f"data={ranks}", "pipeline=1")
    assert folds(experiment, resolve(experiment))
    found = predict(experiment)
    assert found.program.num_ranks == found.recorded.num_ranks == 1
    assert found.to_json()["ranks_simulated"] == 1
    assert [row.rank for row in found.ranks] == found.timeline.members == [*range(shown)]
    assert len(found.notes) == (shown != ranks)
    assert found.metrics.program.instructions == ranks * len(found.program)


def test_without_peers_there_is_nothing_to_fold() -> None:
    experiment = plan("pipeline=128", more=("workload.layers=128",))
    assert not folds(experiment, resolve(experiment))


def test_ranks_that_share_cores_are_all_simulated() -> None:
    experiment = plan("data=66", "pipeline=1", preset="laptop")
    assert not folds(experiment, resolve(experiment))
    found = predict(experiment)
    assert found.program.num_ranks == len(found.ranks) == 66
    assert not any("simulated" in note for note in found.notes)


def test_what_is_run_and_printed_is_whole() -> None:
    assert lower(plan("data=33", "pipeline=2")).num_ranks == 66


def test_another_number_of_replicas_is_another_program() -> None:
    """Even where nothing in the lists tells: `unit` has no gradients to reduce."""
    hashes = {
        lower(plan(f"data={n}", "pipeline=2", more=("workload.model=unit",)), fold=True).hash()
        for n in (1, 2, 3)
    }
    assert len(hashes) == 3


@pytest.fixture
def every_16th() -> Timeline:
    """One message between ranks 0 and 16, and rank 32, that has most to hold."""
    message = {"tensor": "x", "nbytes": 4}
    lists = [
        [Instruction(Task(Op.SEND, 0, stream="send:16", peer=16, **message))],
        [Instruction(Task(Op.RECV, 1, stream="recv:0", peer=0, **message))],
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
    found = predict(plan("data=33", "pipeline=2")).timeline
    save_trace(found, tmp_path / "trace.json")
    loaded = load_trace(tmp_path / "trace.json")
    assert (loaded.members, loaded.counts, loaded.meta) == ([0, 1], [33, 33], found.meta)
    assert loaded.end.tobytes() == found.end.tobytes()

"""Ranks that share a GPU: where they lie, what it costs them, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import load, predict
from simulator.analysis.memory_fit import MemoryFit
from simulator.cluster.catalogue import load_preset
from simulator.cluster.extent import extent_of
from simulator.cluster.topology import MEMORY, PORT
from simulator.experiment.section import ExperimentError
from simulator.prediction import Prediction
from simulator.program.operations import Op

LARGE = ("workload.hidden=2048", "workload.sequence=1024", "workload.heads=16")
SMALL = ("workload.hidden=64", "workload.sequence=16", "workload.heads=2")


def predicted(*overrides: str, ranks_per_device: int = 1, preset: str = "dgx-h100") -> Prediction:
    given = ("workload.dtype=bf16", "workload.layers=4", f"cluster.preset={preset}")
    sharing = f"cluster.ranks_per_device={ranks_per_device}"
    return predict(load(None, [*given, sharing, *overrides]))


def first_pass(prediction: Prediction, rank: int = 0) -> float:
    timeline = prediction.timeline
    span = int((timeline.rank == rank).argmax())
    return float(timeline.end[span] - timeline.start[span])


def test_ranks_are_placed_in_order_so_many_on_a_device() -> None:
    topology = load_preset("dgx-h100").resized(nodes=2).shared_by(2).topology
    assert topology.num_ranks == 32
    assert [topology.device(rank) for rank in (0, 1, 2, 31)] == [0, 0, 1, 15]
    assert [topology.node(rank) for rank in (15, 16)] == [0, 1]
    level, path = topology.path(2, 3)
    assert (level, [str(way) for way, _ in path]) == (
        MEMORY,
        ["out:memory:1", "in:memory:1"],
    )
    level, path = topology.path(1, 2)
    assert (level, [str(way) for way, _ in path]) == (
        PORT,
        ["out:island:0", "in:island:1"],
    )
    extent = extent_of(topology, (0, 1, 2, 3))
    assert extent.counts[:3] == (4, 2, 1)  # ranks, devices, islands


def test_a_message_on_a_device_reads_and_writes_its_memory() -> None:
    cluster = load_preset("dgx-h100").shared_by(2)
    speed = cluster.device.memory_bandwidth * cluster.device.memory_efficiency / 2
    one, two = (cluster.message(0, 1, nbytes).mean_s for nbytes in (10**9, 2 * 10**9))
    copies = 10**9 / cluster.library.copy_bandwidth  # into the library's buffers
    assert two - one == pytest.approx(10**9 / speed + copies)
    assert one < cluster.message(1, 2, 10**9).mean_s


def test_a_ring_passes_every_device_once() -> None:
    """Between devices it is as fast as one rank on each, but for its longer way round."""
    cluster = load_preset("a100-pcie").shared_by(2)
    ring = load_preset("a100-pcie").communication
    group, nbytes = (0, 1, 2, 3, 4, 5, 6, 7), 10**9
    [shared] = [c for c in cluster.communication.candidates(Op.ALL_REDUCE, group, nbytes)
                if c.algorithm == "ring"]  # fmt: skip
    [own] = [c for c in ring.candidates(Op.ALL_REDUCE, (0, 1, 2, 3), nbytes)
             if c.algorithm == "ring"]  # fmt: skip
    assert shared.seconds == pytest.approx(own.seconds * (7 / 8) / (3 / 4), rel=0.01)


def test_in_network_sums_need_a_device_for_every_rank() -> None:
    cluster = load_preset("dgx-h100").shared_by(2)
    found = cluster.communication.candidates(Op.ALL_REDUCE, tuple(range(16)), 10**8)
    assert "in-network" not in {cost.algorithm for cost in found}


def test_passes_that_fill_a_device_take_twice_as_long() -> None:
    overrides = ("parallel.pipeline=1", "parallel.data=2", "parallel.microbatches=1", *LARGE)
    alone, shared = predicted(*overrides), predicted(*overrides, ranks_per_device=2)
    for rank in (0, 1):
        assert first_pass(shared, rank) / first_pass(alone, rank) == pytest.approx(2, rel=1e-6)


def test_passes_that_wait_for_their_launches_leave_room() -> None:
    """Where launching takes four times as long as the kernels, there is room for four."""
    preset = load_preset("dgx-h100")
    device = replace(preset.device, kernel_s=2e-6, matmul_s=2e-6, launch_s=8e-6)
    slow = replace(preset, kinds={preset.topology.kind(0): device})
    experiment = load(None, ["parallel.pipeline=1", "parallel.data=8", *SMALL])
    alone, *shared = (first_pass(predict(experiment, slow.shared_by(k))) for k in (1, 2, 8))
    assert shared[0] == pytest.approx(alone)
    assert 1.9 * alone < shared[1] < 3 * alone


def test_a_pipeline_on_one_device_has_no_bubble() -> None:
    """It computes what one rank would; only where the second stage waits for a message, and at
    the update, nobody else has work."""
    overrides = ("parallel.pipeline=2", "parallel.microbatches=4", "parallel.schedule=gpipe")
    alone = predicted(*overrides, *LARGE)
    shared = predicted(*overrides, *LARGE, ranks_per_device=2)
    compute = alone.timeline.is_compute
    work = float((alone.timeline.end - alone.timeline.start)[compute].sum())
    assert shared.iteration_time_s == pytest.approx(work, rel=0.03)
    assert shared.iteration_time_s >= work * (1 - 1e-9)
    assert alone.iteration_time_s < 0.7 * work


def test_what_two_passes_do_is_work_of_one_device() -> None:
    """MFU is of the devices there are."""
    overrides = ("parallel.pipeline=1", "parallel.data=2", "parallel.microbatches=1", *LARGE)
    alone, shared = predicted(*overrides), predicted(*overrides, ranks_per_device=2)
    assert 0.8 < shared.mfu / alone.mfu < 1.05


def test_peaks_on_a_device_add_up() -> None:
    overrides = ("parallel.pipeline=1", "parallel.data=2", "workload.hidden=6144", *LARGE[1:])
    more = ("workload.layers=8", "workload.optimizer=adam")
    alone = predicted(*overrides, *more, preset="dgx-a100-80gb")
    shared = predicted(*overrides, *more, preset="dgx-a100-80gb", ranks_per_device=2)
    peak = alone.ranks[0].peak_memory_bytes
    assert 40 * 2**30 < peak < 80 * 2**30
    assert not any("does not fit" in note for note in alone.notes)
    [note] = [note for note in shared.notes if "does not fit" in note]
    assert note == str(MemoryFit((0, 1), 2 * peak, 80 * 2**30, "device"))


def test_half_as_many_nodes_are_needed() -> None:
    overrides = ("parallel.pipeline=1", "parallel.data=32", *SMALL)
    assert predicted(*overrides).cluster.nodes == 4
    assert predicted(*overrides, ranks_per_device=2).cluster.nodes == 2
    with pytest.raises(ExperimentError, match=r"raise cluster.nodes to 2"):
        predicted(*overrides, "cluster.nodes=1", ranks_per_device=2)


def test_large_plans_on_shared_devices_are_simulated_whole() -> None:
    found = predicted("parallel.pipeline=2", "parallel.data=40", *SMALL, ranks_per_device=2)
    assert not found.program.is_folded


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster.preset=laptop"], "cluster.ranks_per_device = 2: ranks of cluster laptop"),
        (["run.pace=2", "cluster.preset=dgx-h100"], "= 2: allowed with run.pace: 1"),
        (["workload.model=unit", "parallel.pipeline=2"], "= 2: allowed with workload.model"),
        (["cluster.ranks_per_device=0"], "cluster.ranks_per_device = 0"),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        predict(load(None, ["cluster.ranks_per_device=2", *overrides]))

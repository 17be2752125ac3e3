"""Sharded data parallelism trains the model of one process, holds what ZeRO's table says, and
does what torch's own implementations do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.parameters import Parameters
from runtime.launch.job import Job
from runtime.models.batches import microbatch
from runtime.models.segment import Segment
from simulator.cluster.profile_file import parse_profile
from simulator.cluster.resolve import from_profile
from simulator.engine.pass_key import pass_key
from simulator.experiment_file import parse
from simulator.prediction import predict
from simulator.program.bucket import Bucket
from simulator.program.operations import COMMUNICATION
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe

HERE = Path(__file__).resolve().parent
CPU = torch.device("cpu")
TINY_BUCKETS, SMALL_BUCKETS = 1e-6, 0.003

PLANS = [
    {"data": 2, "microbatches": 2},
    {"data": 2, "microbatches": 3, "bucket_mb": TINY_BUCKETS, "optimizer": "momentum"},
    {"data": 3, "model": "mlp", "bucket_mb": TINY_BUCKETS, "optimizer": "adam"},  # padded
    {"data": 4, "bucket_mb": SMALL_BUCKETS, "optimizer": "adam", "clip_norm": 0.5},
    {"data": 4, "zero_group": 2, "microbatches": 2, "bucket_mb": SMALL_BUCKETS}
    | {"optimizer": "adam", "clip_norm": 0.5},
    {"data": 2, "pipeline": 2, "microbatches": 3, "bucket_mb": SMALL_BUCKETS}
    | {"optimizer": "momentum", "clip_norm": 0.5},
    {"data": 2, "pipeline": 2, "microbatches": 4, "schedule": "zb-h1", "optimizer": "adam"},
    {"data": 2, "pipeline": 2, "microbatches": 4, "schedule": "zb-v", "virtual_stages": 2}
    | {"bucket_mb": TINY_BUCKETS, "clip_norm": 0.5},
]
CASES = [plan | {"zero": zero} for plan in PLANS for zero in (1, 2, 3)] + [
    plan | {"zero": 3, "prefetch": prefetch}
    for prefetch in (0, 2)
    for plan in (
        {"data": 2, "microbatches": 2, "bucket_mb": TINY_BUCKETS},
        {"data": 2, "pipeline": 2, "microbatches": 4, "schedule": "zb-h1", "bucket_mb": 0.003},
    )
]


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", CASES, ids=name_of)
def test_shards_train_the_model_of_one_process(run, equals_one_process, keys):
    ran = run(**keys)
    equals_one_process(ran)
    for instructions, samples in zip(
        ran.program.ranks, ran.measurement.timeline.memory, strict=True
    ):
        held = samples.nbytes  # what a rank really holds, from the storages of its buffers
        resident = ran.program.resident[instructions[0].rank]
        assert held[0] == held[-1] == sum(resident.values())


def test_a_convolution_takes_its_weight_gradient_without_its_weight(workers):
    """Where the backward pass is split, weights are freed before it."""
    found = []
    for zero in (0, 3):
        job = Job(
            parse(
                {
                    "workload": {"model": "alexnet", "image_size": 63, "classes": 5}
                    | {"global_batch": 4, "dtype": "fp64"},
                    "parallel": {"data": 2, "pipeline": 2, "microbatches": 2, "bucket_mb": 20.0}
                    | {"schedule": "zb-h1", "zero": zero},
                    "run": {"iterations": 1, "warmup": 0},
                }
            )
        )
        found.append(workers.run(job)["measurement"])
    for figure in ("losses", "parameters_norm"):
        assert found[0][figure] == pytest.approx(found[1][figure], rel=1e-12)


def test_freed_weights_take_no_memory_and_come_back_for_graphs_in_flight(experiment):
    """Forward, free, gather again, backward: the gradients of weights that were never freed."""
    tiny, results = experiment(), []
    batch, target = microbatch(tiny, 0, 0, CPU)
    for zero in (0, 3):
        segment = Segment(tiny, 0, 3, CPU)
        bucket = Bucket(((0, 3),), shards=(0,), zero=zero)
        flat = Parameters(tiny, [segment], bucket)
        if zero:
            assert flat.values.untyped_storage().nbytes() == 0
            with flat.gathering():
                pass  # a part that is all of it: nothing comes from others
        outputs, graph = forward_pass(segment, {0: batch}, target, 1.0)
        if zero:
            flat.drop_whole()
            assert flat.values.untyped_storage().nbytes() == 0
            with flat.gathering():
                pass
            flat.begin_gradients((0, 0))
        with flat.collecting((0, 0)):
            backward_pass(graph, {3: torch.ones_like(outputs[3])})
        if zero:
            assert all(parameter.grad is None for parameter in segment.parameters())
        results.append(flat.whole_gradients((0, 0)))
    assert torch.equal(*results)
    assert float(results[0].abs().max()) > 0


@pytest.mark.parametrize(
    "keys",
    [
        {"data": 2, "zero": 1, "clip_norm": 0.5, "optimizer": "adam"},
        {"data": 2, "zero": 3, "microbatches": 2, "bucket_mb": SMALL_BUCKETS},
    ],
    ids=name_of,
)
def test_every_pass_of_a_sharded_program_is_calibrated(workers, experiment, keys):
    tiny = experiment(**keys, iterations=1)
    answer = workers.run(Job(tiny, calibrate=True))
    profile, layers = parse_profile(answer["profile"]), describe(tiny)
    assert set(profile.passes) == {
        str(pass_key(i.task.op, layers[slice(*i.task.layers)], tiny.workload, tiny.parallel))
        for i in lower(tiny)
        if i.task.op not in COMMUNICATION
    }
    assert predict(tiny, from_profile(profile)).notes == []


TRAINED = {"data": 2, "microbatches": 2, "bucket_mb": SMALL_BUCKETS} | {
    "optimizer": "adam",
    "iterations": 3,
}
COUNTED = [
    {"data": 2, "zero": zero, "microbatches": m, "bucket_mb": bucket_mb}
    for zero, m, bucket_mb in ((1, 3, 25.0), (2, 3, 25.0), (3, 1, 25.0), (3, 3, TINY_BUCKETS))
]


@pytest.fixture(scope="module")
def in_torch(experiment, run_script, tmp_path_factory):
    """(parameters by implementation, bytes per case of `COUNTED`) of rank 0."""
    folder = tmp_path_factory.mktemp("torch")
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "store": str(folder / "store"),
                "out": str(folder),
                "how": ["ZeroRedundancyOptimizer", "fully_shard"],
                "train": experiment(**TRAINED).model_dump(exclude_unset=True),
                "count": [experiment(**keys).model_dump(exclude_unset=True) for keys in COUNTED],
            }
        )
    )
    run_script("torch_zero.py", job)
    return torch.load(folder / "0.pt")


@pytest.mark.parametrize(("how", "zero"), [("ZeroRedundancyOptimizer", 1), ("fully_shard", 3)])
def test_parameters_are_those_of_torchs_own_sharding(run, in_torch, how, zero):
    expected = in_torch[0][how]
    ours = run(**TRAINED, zero=zero).parameters[0]
    assert {f"{layer}.{name}" for layer, name in ours} == expected.keys()
    for (layer, name), value in ours.items():
        theirs = expected[f"{layer}.{name}"]
        assert float((value - theirs).abs().max() / theirs.abs().max()) <= 1e-10


@pytest.mark.parametrize(("number", "factor"), [(0, 2), (1, 4), (2, 2)])
def test_bytes_on_the_wire(experiment, in_torch, number, factor):
    """2Ψ with stage 1; Ψ for each microbatch and Ψ with stage 2; with stage 3 and everything in
    one bucket, which is never free between forward and backward, 2Ψ."""
    program = lower(experiment(**COUNTED[number]))
    parameters = sum(bucket.nbytes for bucket in program.buckets[0])
    assert in_torch[1][number] == factor * parameters / 2


def test_bytes_on_the_wire_of_many_buckets(experiment, in_torch):
    """3Ψ for each of three microbatches with stage 3, but for the five turns at which the last
    or the first bucket is used twice in a row."""
    program = lower(experiment(**COUNTED[3]))
    sizes = [bucket.nbytes for bucket in sorted(program.buckets[0], key=lambda b: b.segments)]
    expected = 9 * sum(sizes) - 3 * sizes[-1] - 2 * sizes[0]
    assert in_torch[1][3] == expected / 2

"""Compressed gradients: torch's hooks give the same, and without loss so does one process."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from replicas import assert_close
from simulator import predict

WHOLE = {"compression": "top-k", "density": 1.0}
PLANS = [
    {"data": 2, "microbatches": 2, "bucket_mb": 0.003},
    {"data": 3, "bucket_mb": 1e-6, "error_feedback": False},
    {"data": 2, "zero": 1, "microbatches": 2, "optimizer": "adam", "bucket_mb": 0.003},
    {"data": 2, "pipeline": 2, "microbatches": 3, "bucket_mb": 0.003, "clip_norm": 0.5},
    {"data": 2, "pipeline": 2, "microbatches": 4, "schedule": "zb-v", "virtual_stages": 2},
    {"data": 2, "microbatches": 2, "recompute": "full", "optimizer": "momentum"},
]
PARTS = [
    {"data": 2, "tensor": 2, "bucket_mb": 0.003},
    {"data": 2, "tensor": 2, "sequence_parallel": True},
    {"data": 2, "context": 2, "optimizer": "adamw"},
    {"data": 2, "expert": 2, "model": "moe-gpt", "capacity_factor": 0.8},
]
PERIODS = {"data": 2, "sync_period": 2, "horizon": 4, "iterations": 2}
AVERAGES = [
    {"data_style": "local-sgd"},
    {"data_style": "local-sgd", "pipeline": 2, "microbatches": 3, "optimizer": "momentum"},
    {"data_style": "diloco", "optimizer": "adamw"},
    {"data_style": "diloco", "fragments": 2, "bucket_mb": 0.003, "tensor": 2},
]
LOSSY = [
    {"compression": "fp16"},
    {"compression": "fp16", "zero": 1, "error_feedback": True},
    {"compression": "bf16", "pipeline": 2, "microbatches": 2, "bucket_mb": 0.003},
    {"compression": "int8", "bucket_mb": 0.003, "optimizer": "adam"},
    {"compression": "int8", "zero": 1, "error_feedback": True, "bucket_mb": 0.003},
    {"compression": "top-k", "density": 0.1, "horizon": 2, "compression_start": 1},
    {"compression": "top-k", "density": 0.1, "pipeline": 2, "microbatches": 3, "dtype": "bf16"},
    {"compression": "int8", "tensor": 2, "dtype": "fp32"},
    {"compression": "qsgd", "levels": 7, "tensor": 2, "microbatches": 2},
    {"compression": "qsgd", "levels": 1, "zero": 1, "error_feedback": True, "dtype": "fp32"},
    {"compression": "one-bit", "bucket_mb": 0.003, "optimizer": "momentum"},
    {"compression": "power-sgd", "compression_rank": 1, "bucket_mb": 0.003, "microbatches": 2},
    {"compression": "power-sgd", "compression_rank": 2, "zero": 1, "dtype": "fp32"},
    {"compression": "power-sgd", "compression_rank": 1, "pipeline": 2, "microbatches": 2},
    {**PERIODS, "data_style": "diloco", "compression": "qsgd", "levels": 7},
    {**PERIODS, "data_style": "diloco", "compression": "fp16", "dtype": "bf16", "pipeline": 2},
    {**PERIODS, "data_style": "local-sgd", "compression": "power-sgd", "compression_rank": 1},
    {**PERIODS, "data_style": "local-sgd", "compression": "top-k", "density": 0.2},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_without_loss_it_is_an_all_reduce(run, equals_one_process, keys):
    """All values are sent, and errors are zeros."""
    equals_one_process(run(**{**WHOLE, **keys}))


@pytest.mark.parametrize("more", [{"zero": 1}, {"compression_start": 2}, {"pipeline": 2}])
def test_steps_that_follow_each_other_are_compressed_one_by_one(run, more):
    keys = {"data": 2, "horizon": 3, "iterations": 1, "optimizer": "momentum", **more}
    plain = {key: value for key, value in keys.items() if key != "compression_start"}
    ours, theirs = run(**WHOLE, **keys), run(**plain)
    assert ours.measurement.losses == pytest.approx(theirs.measurement.losses, rel=1e-12)
    assert_close(ours.parameters[0], theirs.parameters[0])


@pytest.mark.parametrize("keys", PARTS, ids=name_of)
def test_layers_that_are_cut_into_parts_are_compressed_part_by_part(run, equals_unsplit, keys):
    equals_unsplit(run(**{**WHOLE, **keys}))


@pytest.mark.parametrize("keys", AVERAGES, ids=name_of)
def test_without_loss_changes_of_parameters_are_averaged(run, keys):
    ours, theirs = run(**WHOLE, **PERIODS, **keys), run(**PERIODS, **keys)
    assert ours.measurement.losses == pytest.approx(theirs.measurement.losses, rel=1e-11)
    for mine, plain in zip(ours.shares, theirs.shares, strict=True):
        assert_close(mine[0], plain[0])


@pytest.mark.parametrize("keys", LOSSY, ids=name_of)
def test_replicas_stay_equal_to_the_bit_and_memory_is_as_predicted(run, keys):
    ran = run(**{"data": 2, "dtype": "fp64", **keys})
    for key, value in ran.parameters[0].items():
        assert value.isfinite().all()
        assert value.equal(ran.parameters[1][key])
    predicted = predict(ran.experiment).timeline.memory
    measured = ran.measurement.timeline.memory
    assert [m.nbytes[0] for m in measured] == [m.nbytes[0] for m in predicted]
    if "pipeline" not in keys:  # where messages overlap now and then
        assert [m.peak for m in measured] == [m.peak for m in predicted]


@pytest.mark.parametrize("keys", LOSSY[1::4], ids=name_of)
def test_hosts_that_run_ahead_compute_the_same(run, keys):
    keys = {"data": 2, "dtype": "fp64", **keys}
    waits, ahead = run(**keys), run(**keys, host="runs-ahead")
    for key, value in waits.parameters[0].items():
        assert value.equal(ahead.parameters[0][key])


def test_torch_trains_the_same(run, experiment, run_script, tmp_path):
    """torch's hooks in DDP on gloo, to the bit: two ranks, so that a mean is a product with ½.

    But torch halves values when they are fp16 already, which rounds the smallest, so that a sum may
    be the next one; and products of factors are sums in another order, here in fp64. Of seven steps
    PowerSGD compresses the last five.
    """
    later = {"compression": "power-sgd", "compression_start": 2, "horizon": 7, "dtype": "fp64"}
    cases = [
        {"compression": "fp16", "horizon": 1},
        {"compression": "bf16", "optimizer": "adam"},
        {"compression": "int8"},
        {"compression": "int8", "compression_start": 2, "optimizer": "adam"},
        *({**later, "compression_rank": rank} for rank in (1, 2)),
        {**later, "compression_rank": 4, "hidden": 32, "layers": 1, "optimizer": "adam"},
    ]
    common = {"data": 2, "dtype": "fp32", "iterations": 1, "warmup": 0, "horizon": 4}
    keys = [common | case for case in cases]
    described = [experiment(**one).model_dump(exclude_unset=True) for one in keys]
    job = tmp_path / "job.json"
    job.write_text(
        json.dumps({"store": str(tmp_path / "store"), "out": str(tmp_path), "cases": described})
    )
    run_script("torch_hooks.py", job)
    tolerances = {"fp16": 1e-6, "power-sgd": 1e-12}
    for number, one in enumerate(keys):
        ran, tolerance = run(**one), tolerances.get(one["compression"], 0.0)
        for rank in range(2):
            theirs = torch.load(tmp_path / f"{number}-{rank}.pt")
            ours = {f"{layer}.{name}": p for (layer, name), p in ran.parameters[rank].items()}
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                error = float((ours[key] - value.double()).abs().max())
                assert error <= tolerance, f"{one}: {key}: {error}"

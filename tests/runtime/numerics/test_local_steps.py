"""Replicas that average their parameters every few steps train as one process says they do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from replicas import OPTIMIZERS, assert_close, mix, train_apart

LOCAL = {"data_style": "local-sgd", "iterations": 2, "warmup": 0}
PLANS = [
    {"data": 2, "sync_period": 2, "horizon": 4},
    {"data": 3, "sync_period": 3, "horizon": 3, "model": "mlp", "layers": 3, "microbatches": 2},
    {"data": 2, "sync_period": 2, "horizon": 4, "optimizer": "momentum", "bucket_mb": 0.003},
    {"data": 2, "sync_period": 1, "local_after": 2, "horizon": 5, "optimizer": "adam"},
    {"data": 2, "sync_period": 2, "local_after": 1, "horizon": 3, "bucket_mb": 0.003},
    {"data": 2, "sync_period": 2, "horizon": 2, "optimizer": "adamw", "clip_norm": 0.1},
    {"data": 2, "pipeline": 2, "sync_period": 2, "local_after": 2, "horizon": 4, "microbatches": 3},
    {
        "data": 2,
        "pipeline": 2,
        "sync_period": 2,
        "horizon": 2,
        "microbatches": 2,
        "schedule": "zb-v",
        "virtual_stages": 2,
        "clip_norm": 0.1,
        "local_after": 0,
    },
    {"data": 2, "sync_period": 2, "horizon": 2, "recompute": "full"},
]


def reference(experiment: Any) -> Any:
    before, period = experiment.parallel.local_after or 0, experiment.parallel.sync_period
    count = experiment.parallel.data
    whole = [[1 / count] * count] * count

    def exchange(step: int, values: Any) -> None:
        if step >= before and (step - before + 1) % period == 0:
            mix(whole, values)

    optimizer = OPTIMIZERS[experiment.workload.optimizer]
    return train_apart(experiment, optimizer, exchange, lambda step: step < before)


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_parameters_and_losses_are_those_of_replicas_in_one_process(run, experiment, keys):
    ran = run(**LOCAL | keys)
    parameters, losses, _ = reference(ran.experiment)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, parameters, strict=True):
        assert_close(ours, theirs)


SPLIT = [
    {"data": 2, "tensor": 2},
    {"data": 2, "tensor": 2, "sequence_parallel": True},
    {"data": 2, "context": 2},
    {"data": 2, "expert": 2, "model": "moe-gpt", "capacity_factor": 0.8},
    {"data": 4, "expert": 2, "expert_inside_data": True, "model": "moe-gpt"},
]


@pytest.mark.parametrize("keys", SPLIT, ids=name_of)
@pytest.mark.parametrize("before", [0, 1])
def test_a_period_of_one_step_is_the_synchronous_method(run, equals_unsplit, keys, before):
    """Where layers are cut into parts, too: each replica sums its own parts, and no others."""
    ran = run(**LOCAL | keys, horizon=2, sync_period=1, local_after=before)
    whole = run(**{**keys, "iterations": 2, "warmup": 0, "horizon": 2})
    assert ran.measurement.losses == pytest.approx(whole.measurement.losses, rel=1e-12)
    for ours, theirs in zip(ran.shares, whole.shares, strict=True):
        assert_close(ours[0], theirs[0])


@pytest.mark.parametrize("keys", SPLIT[:3], ids=name_of)
def test_a_replica_that_is_cut_into_parts_trains_as_one_that_is_not(run, keys):
    """With longer periods, and each replica's gradients clipped by their own norm."""
    longer = LOCAL | {"horizon": 4, "sync_period": 2, "clip_norm": 0.5}
    ran = run(**longer | keys)
    whole = run(**longer, data=2)
    assert ran.measurement.losses == pytest.approx(whole.measurement.losses, rel=1e-12)
    assert ran.measurement.parameters_norm == pytest.approx(
        whole.measurement.parameters_norm, rel=1e-12
    )


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_master_weights_are_averaged(run, dtype):
    """In 32 bits, so that replicas are equal afterwards, and small updates are not lost."""
    ran = run(**LOCAL, data=2, dtype=dtype, horizon=2, sync_period=2)
    for key, value in ran.parameters[0].items():
        assert value.equal(ran.parameters[1][key])
    averages = [i.task for i in ran.program if i.task.name == "AVERAGE"]
    buckets = {b.weights: b for b in ran.program.buckets[0]}
    assert all(task.nbytes == 2 * buckets[task.tensor].nbytes for task in averages)


def test_torch_trains_the_same(run, experiment, run_script, tmp_path):
    """torch's post_localSGD_hook and PeriodicModelAverager, of DDP on gloo."""
    cases = [
        {"data": 2, "sync_period": 2, "horizon": 6},
        {"data": 2, "sync_period": 2, "local_after": 2, "horizon": 6, "optimizer": "adam"},
        {"data": 2, "sync_period": 3, "local_after": 1, "horizon": 4},
    ]
    keys = [LOCAL | case | {"iterations": 1} for case in cases]
    described = [experiment(**one).model_dump(exclude_unset=True) for one in keys]
    job = tmp_path / "job.json"
    job.write_text(
        json.dumps({"store": str(tmp_path / "store"), "out": str(tmp_path), "cases": described})
    )
    run_script("torch_local.py", job)
    for number, one in enumerate(keys):
        ran = run(**one)
        for rank in range(2):
            theirs = torch.load(tmp_path / f"{number}-{rank}.pt")
            ours = {f"{layer}.{name}": p for (layer, name), p in ran.parameters[rank].items()}
            assert_close(ours, theirs)

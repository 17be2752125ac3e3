"""Passes compute with what the encoded shards stand for, and updates with the shards themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from replicas import OPTIMIZERS, assert_close
from runtime.executor.codecs.coder import Place
from runtime.executor.codecs.table import CODERS
from runtime.launch.job import Job
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from simulator import predict
from simulator.cluster.profile_file import parse_profile
from simulator.cluster.resolve import from_profile
from simulator.experiment.experiment import Experiment
from simulator.program.bucket import Bucket
from simulator.strategies.gradients.parameter_compression import parameter_encoding
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
SMALL_BUCKETS = 0.003
PLANS = [
    {"parameter_compression": "int8", "data": 2, "microbatches": 2, "bucket_mb": SMALL_BUCKETS},
    {"parameter_compression": "int8", "data": 3, "bucket_mb": 1e-6, "optimizer": "adam"},
    {"parameter_compression": "int8", "data": 4, "zero_group": 2, "optimizer": "momentum"},
    {"parameter_compression": "fp16", "data": 2, "prefetch": 0, "bucket_mb": SMALL_BUCKETS},
    {"parameter_compression": "bf16", "data": 2, "horizon": 2, "bucket_mb": SMALL_BUCKETS},
    {"parameter_compression": "int8", "data": 2, "pipeline": 2, "microbatches": 4, "prefetch": 2}
    | {"schedule": "zb-h1", "bucket_mb": SMALL_BUCKETS},
    {"parameter_compression": "int8", "data": 2, "recompute": "full", "bucket_mb": SMALL_BUCKETS},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def used(experiment: Experiment, buckets: list[Bucket], masters: Mapping[Any, Tensor]) -> Any:
    """What passes use: of each bucket the shards, each encoded and decoded by itself."""
    encoding, found = parameter_encoding(experiment), {}
    assert encoding is not None
    for bucket in buckets:
        keys = [key for key in masters if any(a <= key[0] < b for a, b in bucket.segments)]
        flat = torch.zeros(bucket.nbytes // 8, dtype=torch.float64)
        values = torch.cat([masters[key].flatten() for key in keys])
        flat[: len(values)] = values
        shards = flat.chunk(len(bucket.shards))
        coder = CODERS[type(encoding.codec)](encoding, shards[0], Place(0, 0))
        whole = torch.cat([coder.total(coder.encode(shard, 0, ()), 1) for shard in shards])
        sizes = [masters[key].numel() for key in keys]
        for key, part in zip(keys, whole.split([*sizes, len(flat) - sum(sizes)]), strict=False):
            found[key] = part.view(masters[key].shape)
    return found


def in_one_process(experiment: Experiment) -> tuple[dict[Any, Tensor], list[float]]:
    """The masters at the end, and the loss of each step."""
    program = lower(experiment)
    buckets = list({b.segments: b for of_rank in program.buckets for b in of_rank}.values())
    layers = [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
    weights = {(i, n): p for i, layer in enumerate(layers) for n, p in layer.named_parameters()}
    masters = {key: torch.nn.Parameter(p.detach().clone()) for key, p in weights.items()}
    optimizer = OPTIMIZERS[experiment.workload.optimizer](
        list(masters.values()), lr=experiment.run.learning_rate
    )
    count, losses = experiment.parallel.batch_shares * experiment.parallel.microbatches, []
    for step in range(experiment.run.iterations * experiment.run.horizon):
        with torch.no_grad():
            for key, value in used(experiment, buckets, masters).items():
                weights[key].copy_(value)
                weights[key].grad = None
        total = 0.0
        for index in range(count):
            held, target = microbatch(experiment, step, index, CPU)
            for layer in layers[:-1]:
                held = layer(held)
            loss = layers[-1](held, target) / count
            loss.backward()
            total += loss.item()
        for key, master in masters.items():
            master.grad = weights[key].grad
        optimizer.step()
        losses.append(total)
    return {key: master.detach() for key, master in masters.items()}, losses


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_it_is_training_of_masters_with_gradients_at_what_was_decoded(run, keys):
    ran = run(zero=3, **keys)
    masters, losses = in_one_process(ran.experiment)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-11)
    for replica in ran.parameters:
        assert_close(replica, masters)


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_memory_is_as_predicted(run, keys):
    ran = run(zero=3, **keys)
    predicted = predict(ran.experiment).timeline.memory
    measured = ran.measurement.timeline.memory
    assert [m.nbytes[0] for m in measured] == [m.nbytes[0] for m in predicted]
    assert [m.nbytes[-1] for m in measured] == [m.nbytes[-1] for m in predicted]


@pytest.mark.parametrize("keys", PLANS[:2], ids=name_of)
def test_hosts_that_run_ahead_compute_the_same(run, keys):
    waits, ahead = run(zero=3, **keys), run(zero=3, **keys, host="runs-ahead")
    for key, value in waits.parameters[0].items():
        assert value.equal(ahead.parameters[0][key])


@pytest.mark.parametrize(("codec", "dtype"), [("int8", "bf16"), ("int8", "fp32"), ("fp16", "fp32")])
def test_master_weights_and_single_precision_train(run, codec, dtype):
    keys = {"data": 2, "zero": 3, "bucket_mb": SMALL_BUCKETS, "dtype": dtype}
    ours, plain = run(**keys, parameter_compression=codec), run(**keys)
    assert ours.measurement.losses == pytest.approx(plain.measurement.losses, rel=0.02)


def test_coding_is_calibrated(workers, experiment):
    tiny = experiment(data=2, zero=3, parameter_compression="int8", iterations=1)
    profile = parse_profile(workers.run(Job(tiny, calibrate=True))["profile"])
    known = [key for key in profile.passes if "Int8" in key]
    assert [key.split()[0] for key in sorted(known)] == ["DECODE", "ENCODE"]
    assert predict(tiny, from_profile(profile)).notes == []

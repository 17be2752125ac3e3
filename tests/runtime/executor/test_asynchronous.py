"""PipeDream and PipeDream-2BW against one process that applies the same stale weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from simulator.experiment.experiment import Experiment
from simulator.prediction import predict
from simulator.program.tensors import TensorKind
from simulator.strategies.stages.partition import split_stages
from simulator.workloads.describe import describe

CPU = torch.device("cpu")

CASES = [
    {"schedule": "pipedream", "pipeline": 2, "microbatches": 5},
    {"schedule": "pipedream", "pipeline": 4, "microbatches": 6},
    {"schedule": "pipedream", "pipeline": 3, "microbatches": 2, "layers": 5},
    {"schedule": "pipedream", "pipeline": 2, "microbatches": 4, "data": 2},
    {"schedule": "pipedream", "pipeline": 2, "microbatches": 4, "data": 2, "bucket_mb": 1e-6},
    {"schedule": "pipedream-2bw", "pipeline": 2, "microbatches": 6},
    {"schedule": "pipedream-2bw", "pipeline": 4, "microbatches": 12, "model": "mlp"},
    {"schedule": "pipedream-2bw", "pipeline": 2, "microbatches": 6, "data": 2},
    {"schedule": "pipedream", "pipeline": 2, "microbatches": 2, "horizon": 4, "iterations": 2},
    {"schedule": "pipedream", "pipeline": 4, "microbatches": 1, "horizon": 6},
    {"schedule": "pipedream-2bw", "pipeline": 2, "microbatches": 4, "horizon": 3, "data": 2},
]


def pipedream_version(p: int, stage: int, index: int) -> int:
    """Updates that stage `stage` has made when microbatch `index` starts on it: in flight
    are p - stage microbatches, every older one has been applied."""
    return max(0, index - (p - stage) + 1)


def two_buffer_version(p: int, stage: int, index: int) -> int:
    """Of one update before that of the microbatch's own batch of p, on all stages."""
    return max(0, index // p - 1)


def vector(stage: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(stage.parameters()).detach().clone()


def reference(experiment: Experiment) -> list[torch.Tensor]:
    """Final weights per stage. Every microbatch is computed whole, its stages loaded with
    the versions they would use; updates happen in the order of the microbatches."""
    parallel, run = experiment.parallel, experiment.run
    p, m = parallel.pipeline, parallel.microbatches
    two_buffer = parallel.schedule == "pipedream-2bw"
    version_of = two_buffer_version if two_buffer else pipedream_version
    every = p if two_buffer else 1
    layers = describe(experiment)
    stages = [
        nn.ModuleList(build_layer(experiment, index, CPU) for index in range(*ranges))
        for ranges in split_stages(layers, p)
    ]
    newest = [vector(stage) for stage in stages]
    for iteration in range(run.warmup + run.iterations):
        versions = [[weights] for weights in newest]
        sums = [torch.zeros_like(weights) for weights in newest]
        for index in range(m * run.horizon):
            for s, stage in enumerate(stages):
                weights = versions[s][version_of(p, s, index)]
                nn.utils.vector_to_parameters(weights.clone(), stage.parameters())
            for replica in range(parallel.data):
                step, place = iteration * run.horizon + index // m, replica * m + index % m
                x, target = microbatch(experiment, step, place, CPU)
                chain = [layer for stage in stages for layer in stage]
                for layer in chain[:-1]:
                    x = layer(x)
                loss = chain[-1](x, target) / (parallel.data * every)
                for s, stage in enumerate(stages):
                    parts = torch.autograd.grad(loss, list(stage.parameters()), retain_graph=True)
                    sums[s] += nn.utils.parameters_to_vector(parts)
            if (index + 1) % every == 0:
                for s in range(p):
                    versions[s].append(versions[s][-1] - run.learning_rate * sums[s])
                    sums[s].zero_()
        newest = [weights[-1] for weights in versions]
    return newest


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_same_stale_weights_as_one_process(keys: dict[str, Any], run: Callable[..., Any]) -> None:
    ran = run(**keys)
    expected = reference(ran.experiment)
    ranges = split_stages(describe(ran.experiment), ran.experiment.parallel.pipeline)
    for parameters in ran.parameters:
        for (first, last), theirs in zip(ranges, expected, strict=True):
            ours = torch.cat([t.flatten() for (i, _), t in parameters.items() if first <= i < last])
            assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_staleness_is_the_predicted_one(keys: dict[str, Any], run: Callable[..., Any]) -> None:
    ran = run(**keys)
    p, m = ran.experiment.parallel.pipeline, ran.experiment.parallel.microbatches
    m *= ran.experiment.run.horizon
    predicted = predict(ran.experiment).staleness
    assert ran.measurement.staleness == [stage.to_json() for stage in predicted]
    two_buffer = keys["schedule"] == "pipedream-2bw"
    for stage, row in enumerate(predicted):
        if two_buffer:
            expected = [min(index // p, 1) for index in range(m)]
        else:
            expected = [index - pipedream_version(p, stage, index) for index in range(m)]
        assert row.versions_behind == expected


def test_stashes_are_counted_and_freed(run: Callable[..., Any]) -> None:
    """Rank 0 of PipeDream holds p - 1 weight versions beside the newest, the last rank none."""
    ran = run(schedule="pipedream", pipeline=4, microbatches=6)
    for rank, instructions in enumerate(ran.program.ranks):
        held = peak = 0
        sizes: dict[str, int] = {}
        for instruction in instructions:
            for tensor in instruction.task.allocates:
                if tensor.name.kind is TensorKind.STASH:
                    sizes[tensor.name] = tensor.nbytes
                    held += 1
            peak = max(peak, held)
            held -= sum(name.kind is TensorKind.STASH for name in instruction.task.frees)
        assert (held, peak) == (0, 3 - rank)
        assert set(sizes.values()) <= {ran.program.resident[rank]["parameters"]}

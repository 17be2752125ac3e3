"""An outer optimizer's steps are those of torch, and its limits are simpler methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from replicas import OPTIMIZERS, assert_close, mix, train_apart
from runtime.models.segment import build_layer
from simulator.strategies.gradients.fragments import fragments_of, sent_at
from simulator.workloads.describe import describe

DILOCO = {"data_style": "diloco", "iterations": 2, "warmup": 0, "learning_rate": 0.05}
PLANS = [
    {"data": 2, "sync_period": 2, "horizon": 4, "optimizer": "adamw"},
    {"data": 3, "sync_period": 1, "horizon": 3, "model": "mlp", "layers": 3, "bucket_mb": 1e-6},
    {"data": 2, "sync_period": 2, "horizon": 2, "outer_learning_rate": 0.3, "outer_momentum": 0.5},
    {"data": 2, "sync_period": 2, "horizon": 4, "outer_momentum": 0.0, "optimizer": "momentum"},
    {"data": 2, "pipeline": 2, "sync_period": 2, "horizon": 4, "microbatches": 3, "clip_norm": 1.0},
    {"data": 1, "sync_period": 3, "horizon": 3, "microbatches": 2},
]


def reference(experiment: Any) -> Any:
    """Algorithm 1, with torch's SGD as the outer optimizer; Δ = before - mean."""
    parallel = experiment.parallel
    count, period = parallel.data, parallel.sync_period
    rate, momentum = parallel.outer_learning_rate, parallel.outer_momentum
    momentum = 0.9 if momentum is None else momentum
    outer: dict[str, Any] = {}

    def exchange(step: int, values: Any) -> None:
        if (step + 1) % period:
            return
        mix([[1 / count] * count] * count, values)
        for p, mean in zip(outer["values"], values[0], strict=True):
            p.grad = p.detach() - mean.detach()
        outer["optimizer"].step()
        for mine in values:
            for p, new in zip(mine, outer["values"], strict=True):
                p.data.copy_(new)

    def make_optimizer(values: Any, lr: float) -> Any:
        if not outer:
            outer["values"] = [p.detach().clone().requires_grad_() for p in values]
            outer["optimizer"] = torch.optim.SGD(
                outer["values"], lr=rate or 0.7, momentum=momentum, nesterov=momentum > 0
            )
        return OPTIMIZERS[experiment.workload.optimizer](values, lr=lr)

    return train_apart(experiment, make_optimizer, exchange)


STREAMING = [
    {"data": 2, "sync_period": 4, "horizon": 8, "fragments": 3, "overlap_steps": 1},
    {"data": 2, "sync_period": 3, "horizon": 3, "fragments": 3, "optimizer": "adam"},
    {"data": 3, "sync_period": 4, "horizon": 4, "overlap_steps": 3, "overlap_share": 0.25},
    {
        "data": 2,
        "pipeline": 2,
        "sync_period": 3,
        "horizon": 6,
        "microbatches": 3,
        "fragments": 2,
        "overlap_steps": 1,
        "outer_momentum": 0.0,
    },
]


def streaming_reference(experiment: Any, program: Any) -> Any:
    """Algorithm 2 of Douillard et al. 2025, fragment by fragment."""
    parallel = experiment.parallel
    period, late = parallel.sync_period, parallel.overlap_steps or 0
    momentum = 0.9 if parallel.outer_momentum is None else parallel.outer_momentum
    share = 0.5 if parallel.overlap_share is None else parallel.overlap_share
    fragment_of_layer: dict[int, int] = {}
    for mine in program.buckets:
        buckets = sorted(mine, key=lambda bucket: bucket.segments)
        numbers = fragments_of([bucket.nbytes for bucket in buckets], experiment)
        for bucket, number in zip(buckets, numbers, strict=True):
            for segment in bucket.segments:
                fragment_of_layer |= dict.fromkeys(range(*segment), number)
    fragment = [
        fragment_of_layer.get(index, -1)
        for index in range(len(describe(experiment)))
        for _ in build_layer(experiment, index, torch.device("cpu")).parameters()
    ]
    outer: list[Any] = []
    sent: dict[int, Any] = {}

    def exchange(step: int, values: Any) -> None:
        for number in range(parallel.fragments or 1):
            if step % period == sent_at(number, experiment):
                for place in (i for i, f in enumerate(fragment) if f == number):
                    local = [mine[place].detach() for mine in values]
                    sent[place] = sum(outer[place][0].detach() - one for one in local) / len(local)
            if (step - late) % period == sent_at(number, experiment):
                for place in (i for i, f in enumerate(fragment) if f == number):
                    p, optimizer = outer[place]
                    p.grad = sent.pop(place)
                    optimizer.step()
                    for mine in values:
                        kept = share * mine[place] + (1 - share) * p if late else p
                        mine[place].data.copy_(kept)

    def make_optimizer(values: Any, lr: float) -> Any:
        if not outer:
            for value in values:
                p = value.detach().clone().requires_grad_()
                sgd = torch.optim.SGD([p], lr=0.7, momentum=momentum, nesterov=momentum > 0)
                outer.append((p, sgd))
        return OPTIMIZERS[experiment.workload.optimizer](values, lr=lr)

    return train_apart(experiment, make_optimizer, exchange)


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_parameters_and_losses_are_those_of_replicas_in_one_process(run, keys):
    ran = run(**DILOCO | keys)
    parameters, losses, _ = reference(ran.experiment)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, parameters, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("keys", STREAMING, ids=name_of)
def test_fragments_train_as_one_process_says(run, keys):
    ran = run(**DILOCO | keys, bucket_mb=1e-6)
    parameters, losses, _ = streaming_reference(ran.experiment, ran.program)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, parameters, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("more", [{}, {"tensor": 2}, {"pipeline": 2}], ids=name_of)
def test_a_rate_of_one_without_momentum_is_local_sgd(run, more):
    keys = {"data": 2, "sync_period": 2, "horizon": 4, "optimizer": "momentum", **more}
    outer = run(**DILOCO | keys, outer_learning_rate=1.0, outer_momentum=0.0)
    local = run(**DILOCO | keys | {"data_style": "local-sgd"})
    assert outer.measurement.losses == pytest.approx(local.measurement.losses, rel=1e-11)
    for ours, theirs in zip(outer.shares, local.shares, strict=True):
        assert_close(ours[0], theirs[0])


def test_one_replica_looks_ahead(run):
    """Zhang et al. 2019: φ ← φ + α (θ - φ), then θ ← φ; here with one step a period: SGD × α."""
    keys = {"data": 1, "horizon": 3}
    ahead = run(**DILOCO | keys, sync_period=1, outer_learning_rate=0.5, outer_momentum=0.0)
    plain = run(**keys, iterations=2, warmup=0, learning_rate=0.025)
    assert_close(ahead.parameters[0], plain.parameters[0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_outer_state_is_held_throughout(run, momentum):
    ran = run(**DILOCO, data=2, dtype="bf16", sync_period=2, horizon=2, outer_momentum=momentum)
    local = run(
        **DILOCO | {"data_style": "local-sgd"}, data=2, dtype="bf16", sync_period=2, horizon=2
    )
    for held, less, mine in zip(
        ran.program.resident, local.program.resident, ran.program.buckets, strict=True
    ):
        whole = sum(2 * bucket.nbytes for bucket in mine)  # in fp32
        assert held["optimizer"] - less["optimizer"] == (2 if momentum else 1) * whole
    measured, other = (one.measurement.timeline.memory[0].nbytes.max() for one in (ran, local))
    assert measured > other

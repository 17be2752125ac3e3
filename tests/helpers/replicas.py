"""Replicas that train apart and exchange parameters now and then, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from simulator.experiment.experiment import Experiment
from simulator.workloads.describe import describe

CPU = torch.device("cpu")

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""Torch's optimizers by the names of ours."""

TOLERANCE = 1e-10
"""The share of the largest value of a tensor by which sums in another order may differ."""

Values = list[list[Tensor]]
"""Parameters of every replica, in the order of the model."""


def train_apart(
    experiment: Experiment,
    make_optimizer: Callable[..., Any],
    exchange: Callable[[int, Values], None],
    sums_gradients: Callable[[int], bool] = lambda step: False,
) -> tuple[list[dict[tuple[int, str], Tensor]], list[float], list[list[Tensor]]]:
    """Train every replica on its microbatches, with nothing of the executor.

    Args:
        experiment: its degrees but `data` are not looked at.
        make_optimizer: of parameters and a learning rate.
        exchange: changes the parameters of all replicas at the end of a step of an iteration.
        sums_gradients: whether replicas update by the mean of their gradients in a step.

    Returns:
        The parameters of each replica by (layer, name), the mean losses of all steps, and before
        each step the parameters of each replica, flat.
    """
    parallel, run = experiment.parallel, experiment.run
    count, replicas = parallel.microbatches, parallel.data
    models = [
        [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
        for _ in range(replicas)
    ]
    values = [[p for layer in model for p in layer.parameters()] for model in models]
    optimizers = [make_optimizer(mine, lr=run.learning_rate) for mine in values]
    losses, before = [], []
    for number in range((run.warmup + run.iterations) * run.horizon):
        step = number % run.horizon
        total = 0.0
        before.append([torch.cat([p.detach().flatten() for p in mine]) for mine in values])
        for replica, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            for index in range(count):
                x, target = microbatch(experiment, number, replica * count + index, CPU)
                for layer in model[:-1]:
                    x = layer(x)
                loss = model[-1](x, target)
                (loss / count).backward()
                total += loss.item() / count / replicas
            if experiment.workload.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(values[replica], experiment.workload.clip_norm)
        if sums_gradients(step):
            for same in zip(*values, strict=True):
                mean = sum(p.grad for p in same) / replicas
                for p in same:
                    p.grad = mean.clone()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            exchange(step, values)
        losses.append(total)
    named = [
        {
            (index, name): p.detach()
            for index, layer in enumerate(model)
            for name, p in layer.named_parameters()
        }
        for model in models
    ]
    return named, losses[run.warmup * run.horizon :], before


def mix(weights: Any, values: Values) -> None:
    """Replace the parameters of replica i by the sum of those of all j, times ``weights[i][j]``."""
    for same in zip(*values, strict=True):
        old = [p.detach().clone() for p in same]
        for i, p in enumerate(same):
            p.data.copy_(sum(float(weights[i][j]) * old[j] for j in range(len(old))))


def assert_close(ours: Mapping[Any, Tensor], theirs: Mapping[Any, Tensor]) -> None:
    """Assert that tensors of the same names are equal but for the order of sums."""
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        error = (ours[key] - expected).abs().max() / expected.abs().max()
        assert error <= TOLERANCE, f"{key}: {error:.3g}"

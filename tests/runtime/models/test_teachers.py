"""Targets follow from inputs by fixed rules, to the bit in any batch, and can be learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from runtime.models.teachers import image_class, perceptron
from simulator.workloads.describe import describe

CPU = torch.device("cpu")


def test_mlp_inputs_are_standardised_and_targets_the_teachers(
    experiment: Callable[..., Any],
) -> None:
    x, target = microbatch(experiment(model="mlp", hidden=64, global_batch=64), 3, 0, CPU)
    assert x.shape == target.shape == (64, 8, 64)
    assert abs(float(x.mean())) < 0.1
    assert float(x.var()) == pytest.approx(1.0, abs=0.1)
    assert torch.equal(target, perceptron(x))


def test_a_sample_has_the_same_target_in_any_batch() -> None:
    x = torch.randn(5, 3, 37, dtype=torch.float64)
    assert torch.equal(perceptron(x)[2:3], perceptron(x[2:3]))
    images = torch.randint(256, (6, 3, 30, 30), dtype=torch.uint8)
    assert torch.equal(image_class(images, 10)[4:], image_class(images[4:], 10))


def test_images_are_of_many_classes_whatever_their_brightness() -> None:
    images = torch.randint(100, (200, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    found = image_class(images, 10)
    assert len(found.unique()) == 10
    assert torch.equal(found, image_class(images + 50, 10))
    assert image_class(torch.zeros(1, 3, 2, 2), 1).tolist() == [0]  # fewer pixels than patches


@pytest.mark.parametrize(
    ("keys", "rate", "steps", "share"),
    [
        ({"model": "mlp", "layers": 1, "hidden": 16}, 0.3, 150, 0.35),
        ({"model": "gpt", "layers": 1, "hidden": 16, "sequence": 32}, 1.0, 60, 0.75),
    ],
    ids=["mlp", "gpt"],
)
def test_the_loss_falls(
    keys: dict[str, Any], rate: float, steps: int, share: float, experiment: Callable[..., Any]
) -> None:
    """New samples in every step: what falls is the loss of samples that were never seen."""
    tiny = experiment(**keys, dtype="fp32", global_batch=8)
    layers = [build_layer(tiny, index, CPU) for index in range(len(describe(tiny)))]
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=rate)
    losses = []
    for step in range(steps):
        x, target = microbatch(tiny, step, 0, CPU)
        for layer in layers[:-1]:
            x = layer(x)
        loss = layers[-1](x, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < share * losses[0]

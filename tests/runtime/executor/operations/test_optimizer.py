"""Gradients are scaled and limited before an update, or dropped if they have overflowed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from runtime.executor.loss_scale import LossScaler
from runtime.executor.operations.optimizer import gradient_factor


def context(norm, clip_norm=None, dtype="fp32", scale=8.0):
    """A context whose gradients have this norm once the loss scale is taken out."""
    workload = SimpleNamespace(clip_norm=clip_norm)
    return SimpleNamespace(
        gradient_norm=lambda: torch.tensor(norm, dtype=torch.float64),
        loss_scale=LossScaler(dtype, scale, torch.device("cpu")),
        rank=SimpleNamespace(experiment=SimpleNamespace(workload=workload)),
    )


def test_gradients_below_the_limit_stay_as_they_are():
    factor, overflow = gradient_factor(context(0.5, clip_norm=1.0))
    assert (float(factor), overflow) == (1.0, None)


def test_nobody_asks_for_a_norm_that_nothing_depends_on():
    lone = context(3.0)
    lone.gradient_norm = None
    assert gradient_factor(lone) == (None, None)


def test_gradients_above_the_limit_are_scaled_to_it_as_torch_does():
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    weight.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    factor, _ = gradient_factor(context(5.0, clip_norm=1.0))
    assert float(factor) == pytest.approx(float(weight.grad[0]) / 3)


def test_the_loss_scale_is_taken_out():
    factor, overflow = gradient_factor(context(0.5, dtype="fp16"))
    assert (float(factor), bool(overflow)) == (1 / 8, False)
    factor, _ = gradient_factor(context(2.0, clip_norm=1.0, dtype="fp16"))
    assert float(factor) == pytest.approx(1 / 16)


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_an_overflow_is_dropped_where_the_loss_scale_can_follow(norm):
    _, overflow = gradient_factor(context(norm, dtype="fp16"))
    assert bool(overflow)
    _, overflow = gradient_factor(context(norm, clip_norm=1.0))
    assert overflow is None

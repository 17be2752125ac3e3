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
        gradient_norm=lambda: norm,
        loss_scale=LossScaler(dtype, scale),
        rank=SimpleNamespace(experiment=SimpleNamespace(workload=workload)),
    )


def test_gradients_below_the_limit_stay_as_they_are():
    assert gradient_factor(context(0.5, clip_norm=1.0)) == 1.0
    assert gradient_factor(context(3.0)) == 1.0


def test_gradients_above_the_limit_are_scaled_to_it_as_torch_does():
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    weight.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    assert gradient_factor(context(5.0, clip_norm=1.0)) == pytest.approx(float(weight.grad[0]) / 3)


def test_the_loss_scale_is_taken_out():
    assert gradient_factor(context(0.5, dtype="fp16")) == 1 / 8
    assert gradient_factor(context(2.0, clip_norm=1.0, dtype="fp16")) == pytest.approx(1 / 16)


def test_an_overflow_is_dropped_where_the_loss_scale_can_follow():
    assert gradient_factor(context(math.inf, dtype="fp16")) is None
    assert gradient_factor(context(math.nan, dtype="fp16")) is None
    assert gradient_factor(context(math.inf, clip_norm=1.0)) == 0.0

"""Norms that divide by the root mean square (Zhang and Sennrich 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.loss import wide

EPSILON = 1e-5


class RmsNorm(nn.Module):
    """x × weight ÷ √(mean of x² + ε), over the last dimension.

    The input and one value a row are kept for the backward pass.
    """

    def __init__(self, columns: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(columns))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, columns) to the same shape."""
        if x.is_cuda:  # torch's own is one kernel there, and keeps the same
            return nn.functional.rms_norm(x, self.weight.shape, self.weight, EPSILON)
        return rms_norm(x, self.weight)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Return x × weight ÷ √(mean of x² + ε); statistics are in fp32 at least."""
    apply: Callable[..., Tensor] = _RmsNorm.apply
    return apply(x, weight)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        precise = wide(x)
        inverse = precise.square().mean(-1, keepdim=True).add_(EPSILON).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (precise * inverse).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and of the weight.

        With n = x ÷ rms and g = weight · dy they are (g − n · mean(g · n)) ÷ rms, and dy · n summed
        over rows.
        """
        (gradient,) = gradients
        x, weight, inverse = ctx.saved_tensors
        normed = wide(x) * inverse
        into_normed = wide(gradient) * weight
        along = (into_normed * normed).mean(-1, keepdim=True)
        into_x = (into_normed - normed * along) * inverse
        into_weight = (wide(gradient) * normed).flatten(0, -2).sum(0)
        return into_x.to(x.dtype), into_weight.to(weight.dtype)

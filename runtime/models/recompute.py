"""Functions that run again in the backward pass, so that only their input is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def run_again(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `function(x)`, keeping only x for the backward pass.

    The backward pass calls the function again (Chen et al. 2016, "Training Deep Nets with
    Sublinear Memory Cost", section 4). The function must have no parameters: only the
    gradient of x is returned.
    """
    apply: Callable[..., Tensor] = _Again.apply
    return apply(x, function)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            output = ctx.function(x)
        (gradient,) = torch.autograd.grad(output, x, gradients[0])
        return gradient, None

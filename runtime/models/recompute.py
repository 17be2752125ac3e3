"""Functions that run again in the backward pass, so that only their input is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def run_again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return `function(*inputs)`, keeping only the inputs for the backward pass.

    The backward pass calls the function again (Chen et al. 2016, "Training Deep Nets with
    Sublinear Memory Cost", section 4). The function must have no parameters: only the
    gradients of its inputs are returned.
    """
    apply: Callable[..., Tensor] = _Again.apply
    return apply(function, *inputs)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.function = function
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            output = ctx.function(*inputs)
        return None, *torch.autograd.grad(output, inputs, gradients[0])

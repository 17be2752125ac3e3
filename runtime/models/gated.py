"""The product of a gated MLP: an activation function of one half of the columns × the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["silu", "gelu"]


def gated(x: Tensor, activation: Activation = "silu") -> Tensor:
    """Return f(gate) · up: (…, 2 × columns) → (…, columns).

    Only `x` is kept for the backward pass, which computes f again, as the fused kernels of
    Megatron-LM do.

    Args:
        x: gate and up side by side.
        activation: f: SiLU (SwiGLU), or GELU by its approximation with tanh (GeGLU).
    """
    apply: Callable[..., Tensor] = _Gated.apply
    return apply(x, activation)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(x)
        ctx.activation = activation
        gate, up = x.chunk(2, dim=-1)
        return _activated(gate, activation) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        gate, up = ctx.saved_tensors[0].chunk(2, dim=-1)
        aten, through = torch.ops.aten, gradient * up
        if ctx.activation == "silu":
            into_gate = aten.silu_backward(through, gate)
        else:
            into_gate = aten.gelu_backward(through, gate, approximate="tanh")
        return torch.cat([into_gate, gradient * _activated(gate, ctx.activation)], dim=-1), None


def _activated(gate: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return functional.silu(gate)
    return functional.gelu(gate, approximate="tanh")

"""The product of a gated MLP: an activation function of one half of the columns × the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def swiglu(x: Tensor) -> Tensor:
    """Return SiLU(gate) · up: (…, 2 × columns) → (…, columns).

    Only `x` is kept for the backward pass, which computes SiLU again, as the fused kernels of
    Megatron-LM do.
    """
    apply: Callable[..., Tensor] = _SwiGlu.apply
    return apply(x)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gate, up = ctx.saved_tensors[0].chunk(2, dim=-1)
        sigmoid = gate.sigmoid()
        activated = gate * sigmoid
        into_gate = gradient * up * (sigmoid + activated * (1 - sigmoid))
        return torch.cat([into_gate, gradient * activated], dim=-1)

"""Backward passes in two halves: gradients of inputs now, gradients of weights later.

Layers whose weight gradients are matrix products or convolutions note what those need
while autograd computes the gradients of inputs, and run them when told to (Qi et al. 2023,
"Zero Bubble Pipeline Parallelism", section 2). Small parameters (norms) get their gradients
together with those of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Deferred:
    """Weight gradients that are still to be computed, and the tensors they hold."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []
        self.held: list[Tensor] = []

    def add(self, work: Callable[[], None], *held: Tensor) -> None:
        """Keep `work` for later, and with it the tensors that it reads."""
        self._work.append(work)
        self.held += held

    def nbytes(self, excluding: Iterable[Tensor] = ()) -> int:
        """Return the bytes of all storages held, each once, without those of `excluding`."""
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.held}
        for tensor in excluding:
            sizes.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(sizes.values())

    def run(self) -> None:
        """Compute the kept weight gradients and let go of the tensors that they needed.

        The tensors must be dropped here: the autograd graph refers to this object and this object
        to tensors of the graph, so nothing else would free them.
        """
        with torch.no_grad():
            for work in self._work:
                work()
        self._work.clear()
        self.held.clear()


class Linear(nn.Linear):
    """`torch.nn.Linear` that can defer its weight gradient: set `deferred` to do so."""

    deferred: Deferred | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, inputs) to (…, outputs)."""
        if self.deferred is None:
            return super().forward(x)
        apply: Callable[..., Tensor] = _SplitLinear.apply
        return apply(x, self.weight, self.bias, self.deferred)


class _SplitLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, into: Deferred) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.parameters, ctx.into = (weight, bias), into  # what hooks unpack has no `grad`
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        gradient, (parameter, bias) = gradients[0], ctx.parameters

        def weight_gradient() -> None:
            flat = gradient.flatten(0, -2)
            parameter.grad.addmm_(flat.t(), x.flatten(0, -2))
            if bias is not None:
                bias.grad += flat.sum(0)

        ctx.into.add(weight_gradient, x, gradient)
        return (gradient @ weight if ctx.needs_input_grad[0] else None), None, None, None


class BatchedLinear(nn.Module):
    """One linear layer per part of the input: (num, rows, inputs) → (num, rows, outputs).

    It can defer its weight gradients: set `deferred` to do so. Weights are (num, inputs,
    outputs) and drawn as those of `torch.nn.Linear`.
    """

    deferred: Deferred | None = None
    bias: nn.Parameter | None

    def __init__(self, num: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(num, outputs))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> BatchedLinear:
        """Make a layer of a weight (num, inputs, outputs) and a bias (num, outputs) or None."""
        made = cls(0, 1, 1)
        made.weight = nn.Parameter(weight)
        made.bias = None if bias is None else nn.Parameter(bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Map (num, rows, inputs) to (num, rows, outputs)."""
        if self.deferred is None:
            return _batched(x, self.weight, self.bias)
        apply: Callable[..., Tensor] = _SplitBatchedLinear.apply
        return apply(x, self.weight, self.bias, self.deferred)


def _batched(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.bmm(weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)


class _SplitBatchedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, into: Deferred) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.parameters, ctx.into = (weight, bias), into
        return _batched(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        gradient, (parameter, bias) = gradients[0], ctx.parameters

        def weight_gradient() -> None:
            parameter.grad.baddbmm_(x.transpose(1, 2), gradient)
            if bias is not None:
                bias.grad += gradient.sum(1)

        ctx.into.add(weight_gradient, x, gradient)
        of_input = gradient.bmm(weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        return of_input, None, None, None


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that can defer its weight gradient: set `deferred` to do so.

    It supports zero padding given as a number, without dilation or groups.
    """

    deferred: Deferred | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        if self.deferred is None:
            return super().forward(x)
        apply: Callable[..., Tensor] = _SplitConv2d.apply
        return apply(x, self.weight, self.bias, self.deferred, self.stride, self.padding)


class _SplitConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        into: Deferred,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.parameters, ctx.into, ctx.stride, ctx.padding = (weight, bias), into, stride, padding
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, (parameter, bias) = gradients[0], ctx.parameters
        stride, padding = ctx.stride, ctx.padding

        def part(which: list[bool]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            """Return the gradients of input, weight and bias that `which` asks for."""
            sizes = None if bias is None else bias.shape
            dilation, transposed, output_padding, groups = [1, 1], False, [0, 0], 1
            found: tuple[Tensor | None, Tensor | None, Tensor | None]
            found = torch.ops.aten.convolution_backward(
                *(gradient, x, weight, sizes, stride, padding, dilation),
                *(transposed, output_padding, groups, which),
            )
            return found

        def weight_gradient() -> None:
            _, of_weight, of_bias = part([False, True, bias is not None])
            parameter.grad += of_weight
            if bias is not None:
                bias.grad += of_bias

        ctx.into.add(weight_gradient, x, gradient)
        of_input = part([True, False, False])[0] if ctx.needs_input_grad[0] else None
        return of_input, None, None, None, None, None

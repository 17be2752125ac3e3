"""The layers of `simulator.workloads.alexnet` and `simulator.workloads.vgg16`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models.deferral import Conv2d, Linear
from runtime.models.loss import cross_entropy
from simulator.experiment.experiment import Experiment
from simulator.workloads import alexnet as alexnet_description
from simulator.workloads import vgg16 as vgg16_description
from simulator.workloads.convolution import Block, Conv


def rectify(x: Tensor) -> Tensor:
    """Apply a ReLU that keeps one byte per value for the backward pass instead of its output.

    It stands at the end of a layer, whose output belongs to the next layer and may be freed
    by whoever sends it away.
    """
    apply: Callable[..., Tensor] = _Rectify.apply
    return apply(x)


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x <= 0)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (off,) = ctx.saved_tensors
        return gradients[0].masked_fill(off, 0.0)


def convolution(conv: Conv) -> Conv2d:
    """Make the described convolution, with weights drawn as in He et al. 2015."""
    kernel, stride, padding = conv.window.kernel, conv.window.stride, conv.window.padding
    module = Conv2d(conv.inputs, conv.outputs, kernel, stride, padding, bias=conv.bias)
    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ConvBlock(nn.Module):
    """Convolution, ReLU and, if the block has one, a max-pool."""

    def __init__(self, block: Block):
        super().__init__()
        self.conv, self.pool = convolution(block.conv), block.pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, side, side) to the channels and side of the block."""
        x = self.conv(x)
        pool = self.pool
        if pool is None:
            return rectify(x)
        return functional.max_pool2d(functional.relu(x), pool.kernel, pool.stride, pool.padding)


class FullyConnected(nn.Module):
    """A linear layer over all values of a sample, and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = Linear(inputs, outputs)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, …) to (batch, outputs)."""
        return rectify(self.linear(x.flatten(1)))


class Classifier(nn.Module):
    """The logits and their mean cross-entropy: a scalar."""

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.linear = Linear(inputs, classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, inputs) for labels (batch,)."""
        return cross_entropy(self.linear(x), target)


def alexnet(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.alexnet.layers`, freshly initialised."""
    return _layer(alexnet_description.BLOCKS, alexnet_description.HIDDEN, experiment, index)


def vgg16(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.vgg16.layers`, freshly initialised."""
    return _layer(vgg16_description.BLOCKS, vgg16_description.HIDDEN, experiment, index)


def _layer(
    blocks: tuple[Block, ...], hidden: tuple[int, ...], experiment: Experiment, index: int
) -> nn.Module:
    if index < len(blocks):
        return ConvBlock(blocks[index])
    side = experiment.workload.image_size
    for block in blocks:
        side = block.side(side)
    widths = [blocks[-1].conv.outputs * side**2, *hidden]
    number = index - len(blocks)
    if number < len(hidden):
        return FullyConnected(widths[number], widths[number + 1])
    return Classifier(widths[-1], experiment.workload.classes)

"""The layers of `simulator.workloads.resnet50`: stem, bottleneck block, head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from runtime.models.convnet import Classifier, convolution, rectify
from simulator.experiment.experiment import Experiment
from simulator.workloads import resnet50 as description
from simulator.workloads.convolution import Conv


class ConvNorm(nn.Module):
    """A convolution and a batch norm with the statistics of the microbatch."""

    def __init__(self, conv: Conv):
        super().__init__()
        self.conv = convolution(conv)
        self.norm = nn.BatchNorm2d(conv.outputs, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, side, side) to the channels and side of the convolution."""
        normed: Tensor = self.norm(self.conv(x))
        return normed


class Stem(nn.Module):
    """The first layer: a 7×7 convolution, norm, ReLU and max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNorm(description.STEM)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, side, side) to (batch, 64, side ÷ 4, side ÷ 4)."""
        pool = description.POOL
        x = functional.relu(self.conv(x))
        return functional.max_pool2d(x, pool.kernel, pool.stride, pool.padding)


class Bottleneck(nn.Module):
    """The ReLU of skip connection + three convolutions with norms and ReLU between them."""

    def __init__(self, block: description.Bottleneck):
        super().__init__()
        self.one, self.two, self.three = (ConvNorm(conv) for conv in block.convs)
        self.skip = ConvNorm(block.skip) if block.skip else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, side, side) to the channels and side of the block."""
        inner = functional.relu(self.one(x))
        inner = functional.relu(self.two(inner))
        shortcut = x if self.skip is None else self.skip(x)
        return rectify(self.three(inner) + shortcut)


class Head(nn.Module):
    """The average over the image, logits and their mean cross-entropy: a scalar."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.classifier = Classifier(features, classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, features, side, side) for labels (batch,)."""
        pooled = functional.avg_pool2d(x, x.shape[-1]).flatten(1)
        loss: Tensor = self.classifier(pooled, target)
        return loss


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.resnet50.layers`, freshly initialised."""
    blocks = description.BOTTLENECKS
    if index == 0:
        return Stem()
    if index <= len(blocks):
        return Bottleneck(blocks[index - 1])
    return Head(blocks[-1].outputs, experiment.workload.classes)

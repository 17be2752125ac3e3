"""ResNet-50 (He et al. 2016) as torchvision's `resnet50` ("v1.5") has it.

The stride of a bottleneck is in its 3×3 convolution; 25,557,032 parameters for 1000 classes.

A layer here is the stem, a whole bottleneck block with its skip connection and batch
norms, or the head with its loss: 18 layers. Batch norm uses the statistics of the
microbatch and keeps no running ones, as it would need for inference only; so the result
depends on the microbatch size, but not on which rank computes what. `runtime.models.resnet50`
is the module that computes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.convolution import INDEX_BYTES, Conv, Window, classifier
from simulator.workloads.layer import Layer, norm_shapes

STEM = Conv(3, 64, Window(kernel=7, stride=2, padding=3), bias=False)
POOL = Window(kernel=3, stride=2, padding=1)
EXPANSION = 4

GROUPS = ((64, 3), (128, 4), (256, 6), (512, 3))
"""(Channels inside a block, number of blocks) of conv2_x to conv5_x."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A 1×1, a 3×3 and a 1×1 convolution beside a skip connection.

    The connection has a convolution of its own where the shape changes.
    """

    inputs: int
    channels: int
    stride: int

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return EXPANSION * self.channels

    @property
    def convs(self) -> tuple[Conv, Conv, Conv]:
        """The three convolutions in order."""
        inner = self.channels
        return (
            Conv(self.inputs, inner, Window(1), bias=False),
            Conv(inner, inner, Window(3, self.stride, padding=1), bias=False),
            Conv(inner, self.outputs, Window(1), bias=False),
        )

    @property
    def skip(self) -> Conv | None:
        """The convolution of the skip connection, if the shape changes."""
        if self.inputs == self.outputs and self.stride == 1:
            return None
        return Conv(self.inputs, self.outputs, Window(1, self.stride), bias=False)

    def side(self, size: int) -> int:
        """Return the side of the output for an input of side `size`."""
        return self.convs[1].window.side(size)


def bottlenecks_of(groups: tuple[tuple[int, int], ...]) -> tuple[Bottleneck, ...]:
    """Return the blocks of the given groups; each group but the first begins with a stride of 2."""
    blocks, inputs = [], STEM.outputs
    for group, (channels, count) in enumerate(groups):
        for number in range(count):
            stride = 2 if group and not number else 1
            blocks.append(Bottleneck(inputs, channels, stride))
            inputs = EXPANSION * channels
    return tuple(blocks)


BOTTLENECKS = bottlenecks_of(GROUPS)


def layers(experiment: Experiment) -> list[Layer]:
    """Return stem, sixteen bottleneck blocks, head with its loss."""
    w = experiment.workload
    batch, width, size = experiment.microbatch_size, w.dtype_bytes, w.image_size
    described = [_stem(batch, size, width)]
    size = POOL.side(STEM.window.side(size))
    for block in BOTTLENECKS:
        described.append(_bottleneck(block, batch, size, width))
        size = block.side(size)
    return [*described, _head(batch, size, w.classes, width)]


def _statistics(channels: int, width: int) -> int:
    """Return the bytes of the mean and the inverse deviation that batch norm keeps."""
    return 2 * channels * max(width, 4)


def _stem(batch: int, size: int, width: int) -> Layer:
    """Return 7×7 convolution, batch norm, ReLU and max-pool.

    The input is a batch: it needs no gradient, and autograd, not a boundary, holds it.
    """
    inputs = batch * STEM.inputs * size**2 * width
    values = STEM.values(batch, size)
    side = POOL.side(STEM.window.side(size))
    outputs = batch * STEM.outputs * side**2
    return Layer(
        kind=f"stem b{batch} {STEM.inputs}x{size}x{size}",
        shapes=(*STEM.shapes, *norm_shapes(STEM.outputs)),
        matmuls=(STEM.matmul(batch, size, first=True),),
        # Norm reads twice and writes; ReLU reads and writes, the pool reads.
        moved_bytes=(6 * values + outputs) * width + INDEX_BYTES * outputs,
        kernels=3,
        # Inputs of convolution, norm and pool (which is ReLU's output), positions of maxima.
        saved_bytes=inputs
        + 2 * values * width
        + _statistics(STEM.outputs, width)
        + INDEX_BYTES * outputs,
        deferred_bytes=inputs + values * width,
        defers_input=True,
        output_shape=(batch, STEM.outputs, side, side),
        output_bytes=outputs * width,
    )


def _bottleneck(block: Bottleneck, batch: int, size: int, width: int) -> Layer:
    """Return a bottleneck with its skip connection and batch norms.

    It keeps every norm's input and statistics, the output of the two inner ReLUs, and a byte
    per value for the last one (`runtime.models.convnet.rectify`).
    """
    one, two, three = block.convs
    side = block.side(size)
    first, second, third = (
        one.values(batch, size),
        two.values(batch, size),
        three.values(batch, side),
    )
    placed = [(one, size), (two, size), (three, side)]
    if block.skip:
        placed.append((block.skip, size))
    convs = [conv for conv, _ in placed]
    normed = sum(conv.values(batch, at) for conv, at in placed)
    return Layer(
        kind=f"bottleneck b{batch} {block.inputs}x{size}x{size} to {block.outputs} s{block.stride}",
        shapes=tuple(s for conv in convs for s in (*conv.shapes, *norm_shapes(conv.outputs))),
        matmuls=tuple(conv.matmul(batch, at) for conv, at in placed),
        # Norms read twice and write; ReLU reads and writes. At the end the sum reads two and
        # writes, ReLU reads twice and writes.
        moved_bytes=(3 * normed + 2 * (first + second) + 6 * third) * width + third,
        kernels=len(placed) + 5,
        saved_bytes=(normed + first + second) * width
        + sum(_statistics(conv.outputs, width) for conv in convs)
        + third,
        # Inputs of the second and third convolution, gradients of all outputs.
        deferred_bytes=(first + second + normed) * width,
        defers_input=True,
        output_shape=(batch, block.outputs, side, side),
        output_bytes=third * width,
    )


def _head(batch: int, size: int, classes: int, width: int) -> Layer:
    """Return the average over the image, then the classifier."""
    features = BOTTLENECKS[-1].outputs
    pooled = batch * features * width
    head = classifier(batch, features, classes, width)
    return replace(
        head,
        kind=f"pooled {head.kind} from {size}x{size}",
        moved_bytes=head.moved_bytes + pooled * (size**2 + 1),
        kernels=head.kernels + 1,
        saved_bytes=head.saved_bytes + pooled,
        deferred_bytes=head.deferred_bytes + pooled,
        defers_input=False,
    )

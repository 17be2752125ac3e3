"""Convolutions and pools of square images: sizes, FLOPs and the layers made of them."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.workloads.layer import Layer, Matmul, linear, linear_shapes

INDEX_BYTES = 8
"""Bytes of one position of a maximum, and of one label."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over an image: of a max-pool or of a convolution."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def side(self, size: int) -> int:
        """Return the side of the output for an input of side `size`."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def __str__(self) -> str:
        return f"k{self.kernel} s{self.stride} p{self.padding}"


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of `inputs` channels to `outputs` channels."""

    inputs: int
    outputs: int
    window: Window
    bias: bool = True

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weight and, if there is one, the bias."""
        side = self.window.kernel
        weight = (self.outputs, self.inputs, side, side)
        return (weight, (self.outputs,)) if self.bias else (weight,)

    def values(self, batch: int, size: int) -> int:
        """Return the number of the output's values for `batch` images of side `size`."""
        return batch * self.outputs * self.window.side(size) ** 2

    def matmul(self, batch: int, size: int, first: bool = False) -> Matmul:
        """Return it as a matrix product, in which a pixel of the output is a row.

        Source: Chetlur et al. 2014, "cuDNN", section 3.

        Args:
            first: the input is a batch, which has no gradient.
        """
        pixels = batch * self.window.side(size) ** 2
        patch = self.inputs * self.window.kernel**2
        return Matmul(pixels, self.outputs, patch, into_input=not first)


@dataclass(frozen=True, slots=True)
class Block:
    """A convolution, ReLU and perhaps a max-pool: one layer."""

    conv: Conv
    pool: Window | None = None

    def side(self, size: int) -> int:
        """Return the side of the output for an input of side `size`."""
        side = self.conv.window.side(size)
        return self.pool.side(side) if self.pool else side


def convolution(block: Block, batch: int, size: int, width: int, first: bool) -> Layer:
    """Return convolution, ReLU and perhaps a max-pool of `batch` images of side `size`.

    Before a pool, ReLU keeps its output, which the pool keeps as well, and the pool the
    positions of the maxima (int64). A ReLU that ends the layer keeps a byte per value, not
    the output, which the next layer holds (`runtime.models.convnet.rectify`).

    Args:
        width: bytes of a value.
        first: the input is a batch: it needs no gradient, and autograd, not a boundary,
            holds it.
    """
    conv, side = block.conv, block.side(size)
    inputs = batch * conv.inputs * size**2 * width
    values = conv.values(batch, size)
    outputs = batch * conv.outputs * side**2
    saved = values * width + INDEX_BYTES * outputs if block.pool else values
    return Layer(
        kind=f"conv{'-first' if first else ''} b{batch} {conv.inputs}x{size}x{size} to "
        f"{conv.outputs} {conv.window}" + (f" pool {block.pool}" if block.pool else ""),
        shapes=conv.shapes,
        matmuls=(conv.matmul(batch, size, first),),
        # ReLU reads and writes; the pool reads and writes values and positions.
        moved_bytes=2 * values * width
        + (values * width + outputs * (width + INDEX_BYTES) if block.pool else values),
        kernels=2,
        saved_bytes=saved + (inputs if first else 0),
        deferred_bytes=values * width + (inputs if first else 0),
        defers_input=True,
        output_shape=(batch, conv.outputs, side, side),
        output_bytes=outputs * width,
    )


def fully_connected(batch: int, inputs: int, outputs: int, width: int) -> Layer:
    """Return a matrix product and ReLU."""
    return Layer(
        kind=f"fully-connected b{batch} {inputs} to {outputs}",
        shapes=linear_shapes(inputs, outputs),
        matmuls=(linear(batch, inputs, outputs),),
        moved_bytes=2 * batch * outputs * width + batch * outputs,
        kernels=2,
        saved_bytes=batch * outputs,
        deferred_bytes=batch * outputs * width,
        defers_input=True,
        output_shape=(batch, outputs),
        output_bytes=batch * outputs * width,
    )


def classifier(batch: int, inputs: int, classes: int, width: int) -> Layer:
    """Return a matrix product and softmax cross-entropy.

    The output of log-softmax, labels and the loss's total weight are kept.
    """
    wide = max(width, 4)
    return Layer(
        kind=f"classifier b{batch} {inputs} to {classes}",
        shapes=linear_shapes(inputs, classes),
        matmuls=(linear(batch, inputs, classes),),
        moved_bytes=3 * batch * classes * wide,
        kernels=2,
        saved_bytes=batch * classes * wide + INDEX_BYTES * batch + wide,
        deferred_bytes=batch * classes * width,
        defers_input=True,
    )


def chain(
    blocks: tuple[Block, ...], hidden: tuple[int, ...], image: tuple[int, int, int, int]
) -> list[Layer]:
    """Return blocks of convolutions, fully connected layers with `hidden` outputs, classifier.

    Args:
        image: (images, side, classes, bytes of a value).
    """
    batch, size, classes, width = image
    layers = []
    for index, block in enumerate(blocks):
        layers.append(convolution(block, batch, size, width, first=index == 0))
        size = block.side(size)
    features = blocks[-1].conv.outputs * size**2
    for outputs in hidden:
        layers.append(fully_connected(batch, features, outputs, width))
        features = outputs
    return [*layers, classifier(batch, features, classes, width)]

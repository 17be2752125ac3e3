"""VGG16: configuration D of Simonyan & Zisserman 2015, without batch norm.

Thirteen 3×3 convolutions and three fully connected layers: 138,357,544 parameters for
224×224 images of 1000 classes, 74 % of them in the first fully connected layer, while the
first two convolutions make the largest activations. Each layer with its ReLU and pool is a
layer here, the last with softmax cross-entropy. Dropout is left out, so that a run
repeats. The first fully connected layer takes what the convolutions leave: 512×7×7 values
at 224×224; at other sizes torchvision averages them to 7×7, this does not.
`runtime.models.convnet` is the module that computes it.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.workloads.convolution import Block, Conv, Window, chain
from simulator.workloads.layer import Layer

POOL = Window(kernel=2, stride=2)

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Outputs of the convolutions; a 2×2 pool follows the last of each group."""

HIDDEN = (4096, 4096)
"""Outputs of the fully connected layers before the last."""


def blocks_of(channels: tuple[tuple[int, ...], ...]) -> tuple[Block, ...]:
    """Return 3×3 convolutions with the given outputs, group by group."""
    blocks, inputs = [], 3
    for group in channels:
        for number, outputs in enumerate(group, start=1):
            conv = Conv(inputs, outputs, Window(kernel=3, padding=1))
            blocks.append(Block(conv, POOL if number == len(group) else None))
            inputs = outputs
    return tuple(blocks)


BLOCKS = blocks_of(CHANNELS)


def layers(experiment: Experiment) -> list[Layer]:
    """Return thirteen convolutions, two fully connected layers, the classifier with its loss."""
    w = experiment.workload
    image = (experiment.microbatch_size, w.image_size, w.classes, w.dtype_bytes)
    return chain(BLOCKS, HIDDEN, image)

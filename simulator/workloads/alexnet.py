"""AlexNet in its one-column form, with the channels of torchvision's `alexnet`.

Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
Five convolutions and three fully connected layers: 61,100,840 parameters for 224×224
images of 1000 classes. Most FLOPs and activations are in the former, 96 % of the
parameters in the latter. Each layer with its ReLU and pool is a layer here, the last with
softmax cross-entropy. Dropout is left out, so that a run repeats. The first fully
connected layer takes what the convolutions leave: 256×6×6 values at 224×224; at other
sizes torchvision averages them to 6×6, this does not. `runtime.models.convnet` is the
module that computes it.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.workloads.convolution import Block, Conv, Window, chain
from simulator.workloads.layer import Layer

POOL = Window(kernel=3, stride=2)

BLOCKS = (
    Block(Conv(3, 64, Window(kernel=11, stride=4, padding=2)), POOL),
    Block(Conv(64, 192, Window(kernel=5, padding=2)), POOL),
    Block(Conv(192, 384, Window(kernel=3, padding=1))),
    Block(Conv(384, 256, Window(kernel=3, padding=1))),
    Block(Conv(256, 256, Window(kernel=3, padding=1)), POOL),
)

HIDDEN = (4096, 4096)
"""Outputs of the fully connected layers before the last."""


def layers(experiment: Experiment) -> list[Layer]:
    """Return five convolutions, two fully connected layers, the classifier with its loss."""
    w = experiment.workload
    image = (experiment.microbatch_size, w.image_size, w.classes, w.dtype_bytes)
    return chain(BLOCKS, HIDDEN, image)

"""Teachers: the fixed rules from inputs to targets that models without text targets learn.

Text predicts itself: the byte that follows can be learnt. Numbers and pixels made of text have no
such target, so one is computed from the input by a rule that never changes. All arithmetic is
element by element or of integers, so a sample has the same target to the bit in any batch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SEED = 18
"""All experiments learn from the same teachers, whatever ``run.seed`` is."""

PATCHES = 4
"""An image is seen as a grid of so many patches on a side."""


def perceptron(inputs: Tensor) -> Tensor:
    """Return what a residual layer with two random connections a value makes of inputs.

    A value is its input, and half of ± another input and of ± the positive part of a third, which
    are drawn once for a width. A perceptron with a residual can learn it.

    Args:
        inputs: (batch, sequence, hidden).
    """
    first, second, signs = _connections(inputs.shape[-1])
    return inputs + inputs[..., first] * signs[0] + inputs[..., second].relu() * signs[1]


@lru_cache
def _connections(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which two other inputs each value has, and what these are multiplied with."""
    random = torch.Generator().manual_seed(SEED)
    first, second = (torch.randperm(width, generator=random) for _ in range(2))
    return first, second, torch.randint(2, (2, width), generator=random) - 0.5


def image_class(images: Tensor, classes: int) -> Tensor:
    """Return the class of each image: the one whose pattern its patches of brightness fit best.

    A class has a random pattern of ±1, one for each channel and patch.

    Args:
        images: bytes, (batch, 3, size, size).
        classes: how many there are.
    """
    patches = _patches(images.long())
    sizes = _patches(torch.ones_like(images[:1], dtype=torch.int64))
    contrast = sizes.sum() * patches - patches.sum(1, keepdim=True) * sizes
    random = torch.Generator().manual_seed(SEED)
    patterns = 2 * torch.randint(2, (classes, patches.shape[1]), generator=random) - 1
    return (contrast @ patterns.T).argmax(1)


def _patches(images: Tensor) -> Tensor:
    """Return the sum over each patch of each channel, (batch, channels × patches)."""
    return _sums(_sums(images, 2), 3).flatten(1)


def _sums(values: Tensor, axis: int) -> Tensor:
    """Return sums over neighbours on an axis, as many as there are patches on a side."""
    parts = values.tensor_split(min(PATCHES, values.shape[axis]), axis)
    return torch.stack([part.sum(axis) for part in parts], axis)

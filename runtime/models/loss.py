"""Losses, in fp32 at least: sums over a vocabulary or a batch need its precision, and the loss
scale of fp16 its range (Micikevicius et al. 2018, section 3.1; so does `torch.autocast`).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def wide(x: Tensor) -> Tensor:
    """fp32 of 16-bit values; others as they are."""
    return x.float() if x.element_size() < 4 else x


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean over rows: a scalar."""
    return functional.cross_entropy(wide(logits), tokens)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Mean over all values: a scalar."""
    return functional.mse_loss(wide(x), wide(target))

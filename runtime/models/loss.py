"""Losses, computed in fp32 at least.

Sums over a vocabulary or a batch need the precision of fp32, and the loss scale of fp16 its
range (Micikevicius et al. 2018, section 3.1; `torch.autocast` does the same).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def wide(x: Tensor) -> Tensor:
    """Return 16-bit values as fp32, and others unchanged."""
    return x.float() if x.element_size() < 4 else x


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean cross-entropy over rows: a scalar."""
    return functional.cross_entropy(wide(logits), tokens)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all values: a scalar."""
    return functional.mse_loss(wide(x), wide(target))

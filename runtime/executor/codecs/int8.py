"""Integers of 8 bits, as torch's `quantization_pertensor_hook` makes them.

Its scale does not go below 1.2e-7, and gradients that small are lost; here it follows them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.executor.codecs.coder import Coder

LEVELS = 255


class Int8Coder(Coder):
    """Divides the range of all values, with 0 in it, into equal steps."""

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return scale and zero point, and the steps, all rounded to the nearest."""
        low, high = torch.aminmax(values)
        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-torch.round(low / scale)).clamp(0, LEVELS)
        levels = (torch.round(values / scale) + zero).clamp_(0, LEVELS)
        return [torch.stack([scale, zero]), levels.to(torch.uint8)]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum of what the steps of all ranks stand for, in the order of ranks."""
        scales, levels = come[0].view(ranks, 2), come[1].view(ranks, self.count)
        total = torch.zeros(self.count, dtype=self.dtype, device=self.device)
        for (scale, zero), mine in zip(scales, levels, strict=True):
            total += scale * (mine.float() - zero)
        return total

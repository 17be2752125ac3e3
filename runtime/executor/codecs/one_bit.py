"""Signs, and the mean magnitude."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.executor.codecs.bits import packed, unpacked
from runtime.executor.codecs.coder import Coder


class OneBitCoder(Coder):
    """Sends signs, that of 0 as plus."""

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return scale and signs."""
        signs = (values >= 0).to(torch.uint8)
        signs = torch.nn.functional.pad(signs, (0, -self.count % 8))
        return [values.abs().mean().float().view(1), packed(signs, 1)]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum of signs times scales, in the order of ranks."""
        total = torch.zeros(self.count, dtype=self.dtype, device=self.device)
        for scale, mine in zip(come[0], come[1].view(ranks, -1), strict=True):
            signs = unpacked(mine, 1)[: self.count].to(self.dtype)
            total += signs.mul_(2).sub_(1).mul_(scale)
        return total

"""Integers of 8 bits with a scale for each block, as ZeRO++ sends weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from runtime.executor.codecs.coder import Coder
from simulator.program.codecs.block_int8 import BLOCK

LEVELS = 127


class BlockInt8Coder(Coder):
    """Divides the largest magnitude of each block into equal steps, with a sign."""

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return the scales, and the steps, rounded to the nearest."""
        blocks = pad(values.float(), (0, -self.count % BLOCK)).view(-1, BLOCK)
        scales = (blocks.abs().amax(dim=1) / LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
        levels = (blocks / scales.unsqueeze(1)).round_().clamp_(-LEVELS, LEVELS)
        return [scales, levels.flatten()[: self.count].to(torch.int8)]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum of what the steps of all ranks stand for, in the order of ranks."""
        scales, levels = come[0].view(ranks, -1), come[1].view(ranks, self.count)
        total = torch.zeros(self.count, dtype=self.dtype, device=self.device)
        for scale, mine in zip(scales, levels, strict=True):
            total += mine.float().mul_(scale.repeat_interleave(BLOCK)[: self.count])
        return total

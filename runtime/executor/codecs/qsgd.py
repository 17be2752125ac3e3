"""Random levels whose mean is the value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.executor.codecs.bits import packed, unpacked
from runtime.executor.codecs.coder import Coder, Place
from simulator.program.codecs.codec import Encoding
from simulator.program.codecs.qsgd import GROUP, Qsgd


class QsgdCoder(Coder):
    """Draws for each value the level below its magnitude, or the one above."""

    def __init__(self, encoding: Encoding, like: Tensor, place: Place) -> None:
        super().__init__(encoding, like, place)
        codec = encoding.codec
        assert isinstance(codec, Qsgd)
        self.levels, self.bits = codec.levels, codec.bits
        self._random = torch.Generator(device=self.device)
        self._random.manual_seed(4099 * place.seed + place.number)

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return norms and levels, from 0 to twice the number of levels."""
        padded = torch.nn.functional.pad(values, (0, -self.count % GROUP)).view(-1, GROUP)
        norms = torch.linalg.vector_norm(
            padded, dim=1, dtype=torch.promote_types(self.dtype, torch.float32)
        )
        norms = norms.float()
        scale = self.levels / norms.clamp(min=torch.finfo(torch.float32).tiny)
        between = padded.abs() * scale.unsqueeze(1)
        random = torch.rand(
            between.shape, dtype=between.dtype, device=self.device, generator=self._random
        )
        levels = torch.floor(between.add_(random)).clamp_(max=self.levels)
        signed = levels * padded.sign() + self.levels
        return [norms, packed(signed.to(torch.uint8).view(-1), self.bits)]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum of what the levels of all ranks stand for, in the order of ranks."""
        total = torch.zeros(self.count, dtype=self.dtype, device=self.device)
        theirs = zip(come[0].view(ranks, -1), come[1].view(ranks, -1), strict=True)
        for norms, several in theirs:
            levels = unpacked(several, self.bits).view(-1, GROUP).to(self.dtype) - self.levels
            values = levels * (norms / self.levels).unsqueeze(1)
            total += values.view(-1)[: self.count]
        return total

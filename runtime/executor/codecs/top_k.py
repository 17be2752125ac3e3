"""The values of largest magnitude, with their places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.executor.codecs.coder import Coder
from simulator.program.codecs.codec import Values
from simulator.program.codecs.top_k import TopK


class TopKCoder(Coder):
    """Selects; of equal magnitudes any may be taken."""

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return values and places."""
        codec = self.encoding.codec
        assert isinstance(codec, TopK)
        kept = codec.kept(Values(self.count, self.dtype.itemsize))
        places = torch.topk(values.abs(), kept, sorted=False).indices
        return [values[places], places.to(torch.int32)]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum, rank by rank: of one rank, no two values have one place."""
        total = torch.zeros(self.count, dtype=self.dtype, device=self.device)
        for values, places in zip(come[0].view(ranks, -1), come[1].view(ranks, -1), strict=True):
            total.index_add_(0, places, values)
        return total

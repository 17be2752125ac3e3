"""Casts to 16 bits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from runtime.executor.codecs.coder import Coder
from runtime.models.dtypes import TORCH_DTYPE


class Cast(Coder):
    """Rounds to the nearest value of a narrower type."""

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return the values, cast."""
        return [values.to(TORCH_DTYPE[self.encoding.codec.IS_NARROW])]

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum, cast back: it was made on the way."""
        return come[0].to(self.dtype)

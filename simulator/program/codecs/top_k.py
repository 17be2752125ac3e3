"""The values of largest magnitude, with their places (Aji & Heafield 2017, section 3).

The places that ranks choose differ, so there is nothing to sum on the way: values and places of
all ranks go to every rank. In fp32, that is (n - 1) · 8k bytes a rank, where an all-reduce of d
values takes 8d(n - 1)/n: less only for k/d < 1/n.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values

PLACE_BYTES = 4
MOST = 2**31 - 1
"""The most values whose places have 4 bytes."""


@dataclass(frozen=True)
class TopK(Codec):
    """The share `density` of all values, at least one of them."""

    density: float

    IS_BIASED: ClassVar[bool] = True

    def kept(self, values: Values) -> int:
        """Return how many values are sent."""
        return max(1, ceil(self.density * values.count))

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return values and places."""
        kept = self.kept(values)
        return ((Sent("values", kept * values.width, ""), Sent("places", kept * 4, "int32")),)

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of a selection, which reads the magnitudes a few times."""
        sent = self.kept(values) * (values.width + PLACE_BYTES)
        return CodecWork(5.0 * values.nbytes + 3.0 * sent, 4)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of zeros, and of sums in the places that have come."""
        come = ranks * self.kept(values)
        return CodecWork(2.0 * values.nbytes + come * (3.0 * values.width + PLACE_BYTES), 3)

    def refusal(self, values: Values) -> str:
        """Refuse tensors of more values than places can tell apart."""
        if values.count <= MOST:
            return ""
        return f"{values.count} values in a bucket, and places have 4 bytes; allowed: {MOST}"

"""Casts: values of 16 bits are summed in place of wider ones.

Torch's `fp16_compress_hook` and `bf16_compress_hook` do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values


@dataclass(frozen=True)
class Fp16(Codec):
    """Values of 5 bits of exponent and 10 of fraction."""

    IS_NARROW: ClassVar[str] = "fp16"

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return the values, cast."""
        return ((Sent("cast", 2 * values.count, self.IS_NARROW, True, True),),)

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of the cast."""
        return CodecWork(values.nbytes + 2.0 * values.count, 1)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of the cast back."""
        return CodecWork(values.nbytes + 2.0 * values.count, 1)


@dataclass(frozen=True)
class Bf16(Fp16):
    """Values of 8 bits of exponent and 7 of fraction."""

    IS_NARROW: ClassVar[str] = "bf16"

"""Integers of 8 bits, with a scale and a zero point for the whole tensor.

Torch's `quantization_pertensor_hook` does the same: the scales and then the bytes of all ranks go
to every rank, which adds up what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values

SCALE_BYTES = 8
"""Scale and zero point, each in fp32."""


@dataclass(frozen=True)
class Int8(Codec):
    """Value ÷ scale + zero point, rounded to 0 … 255."""

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return scale and zero point, and the bytes."""
        return ((Sent("scale", SCALE_BYTES, "fp32"), Sent("levels", values.count, "uint8")),)

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of the smallest, the largest, division, rounding and the cast."""
        return CodecWork(6.0 * values.nbytes + values.count, 6)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of a cast, a shift, a product and a sum for each rank."""
        each = values.count + 8.0 * values.nbytes
        return CodecWork(ranks * each + values.nbytes, 4 * ranks)

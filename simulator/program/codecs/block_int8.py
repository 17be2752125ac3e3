"""Integers of 8 bits, with a scale for each block of values.

ZeRO++ sends weights so (Wang et al. 2023, "ZeRO++", section 3.1): one scale for all of them would
be that of the largest, and most of the others would become zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values

BLOCK = 2048
"""Values with a scale of their own."""
SCALE_BYTES = 4


@dataclass(frozen=True)
class BlockInt8(Codec):
    """Value ÷ scale, rounded to -127 … 127; a scale is the largest magnitude of its block ÷ 127."""

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return the scales, and the bytes."""
        blocks = -(-values.count // BLOCK)
        return (
            (Sent("scales", SCALE_BYTES * blocks, "fp32"), Sent("levels", values.count, "int8")),
        )

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of a copy in fp32, the largest magnitudes, division, rounding, a cast."""
        return CodecWork(values.nbytes + 41.0 * values.count, 8)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of a cast, of a scale for each value, a product and a sum, by rank."""
        each = 25.0 * values.count + 2.0 * values.nbytes
        return CodecWork(ranks * each + values.nbytes, 4 * ranks + 1)

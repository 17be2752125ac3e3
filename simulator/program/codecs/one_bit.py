"""The sign of each value, and one magnitude for all (Seide et al. 2014, "1-Bit SGD").

The magnitude is the mean of those of all values, ‖p‖₁/d (Karimireddy et al. 2019, "Error Feedback
Fixes SignSGD", section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values

SCALE_BYTES = 4


@dataclass(frozen=True)
class OneBit(Codec):
    """Eight signs in a byte, and a scale in fp32."""

    IS_BIASED: ClassVar[bool] = True

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return scale and signs."""
        signs = -(-values.count // 8)
        return ((Sent("scale", SCALE_BYTES, "fp32"), Sent("signs", signs, "uint8")),)

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of a mean of magnitudes, of signs as bytes, and of packing these."""
        return CodecWork(4.0 * values.nbytes + 6.0 * values.count, 5)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of unpacking, a product and a sum for each rank."""
        each = 4.0 * values.count + 6.0 * values.nbytes
        return CodecWork(ranks * each + values.nbytes, 5 * ranks)

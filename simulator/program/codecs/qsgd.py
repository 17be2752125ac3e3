"""Random levels whose mean is the value (Alistarh et al. 2017, "QSGD", section 3).

Of values v with norm ‖v‖, each is sent as one of the s levels ‖v‖·l/s to its left and right, with
its sign, drawn so that the mean is the value: E Q(v) = v, E‖Q(v) - v‖² ≤ min(d/s², √d/s)·‖v‖². That
grows with the number d of values, so each `GROUP` of them has a norm of its own (section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Values

GROUP = 512
"""Values with a norm of their own, as in the experiments of the paper."""
NORM_BYTES = 4
BITS = {1: 2, 7: 4, 127: 8}
"""The most levels that so many bits can hold, with signs and 0."""


@dataclass(frozen=True)
class Qsgd(Codec):
    """Values on one of `levels` levels, with their sign."""

    levels: int

    @property
    def bits(self) -> int:
        """Bits of a value: as many as divide a byte."""
        return next(bits for most, bits in BITS.items() if self.levels <= most)

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return the norms, and the levels of whole groups."""
        groups = -(-values.count // GROUP)
        levels = groups * GROUP * self.bits // 8
        return ((Sent("norms", NORM_BYTES * groups, "fp32"), Sent("levels", levels, "uint8")),)

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of norms, scaling, random numbers, rounding and packing."""
        return CodecWork(14.0 * values.nbytes + 6.0 * values.count, 12)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of unpacking, a shift, a product and a sum for each rank."""
        each = 4.0 * values.count + 8.0 * values.nbytes
        return CodecWork(ranks * each + values.nbytes, 6 * ranks)

"""Matrices as products of two narrow ones (Vogels et al. 2019, "PowerSGD", Algorithms 1 and 2).

P = MQ is summed over the ranks and made orthogonal, Q = MᵀP is summed, and PQᵀ is taken for the sum
of all M. Q is kept for the next step (warm start). Torch's `powerSGD_hook` does the same: it leaves
tensors alone that would not become smaller by more than a half, and sends what is left, all P and
all Q of a bucket in one all-reduce each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple

from simulator.program.codecs.codec import Codec, CodecWork, Sent, Shape, Values

LEAST_RATE = 2
"""A matrix must become smaller than by this factor: `min_compression_rate` in torch."""


class Factors(NamedTuple):
    """The sizes of the factors of a matrix: P is rows × rank, Q is columns × rank."""

    rows: int
    columns: int
    rank: int


@dataclass(frozen=True)
class PowerSgd(Codec):
    """Factors of rank `compression_rank`, or of that of the matrix if it is smaller."""

    compression_rank: int

    IS_BIASED: ClassVar[bool] = True
    IS_OF_SUM: ClassVar[bool] = True
    READS_SHAPES: ClassVar[bool] = True

    def factors(self, shape: Shape) -> Factors | None:
        """Return the factors of a parameter, seen as a matrix; None: it is sent as it is."""
        rows, columns = shape[0], prod(shape[1:])
        rank = min(rows, columns, self.compression_rank)
        if (rows + columns) * rank * LEAST_RATE < rows * columns:
            return Factors(rows, columns, rank)
        return None

    def _all(self, values: Values) -> list[Factors]:
        found = (self.factors(shape) for shape in values.shapes)
        return [factors for factors in found if factors is not None]

    def _rest(self, values: Values) -> int:
        """Return the number of values that are sent as they are."""
        return sum(prod(shape) for shape in values.shapes if self.factors(shape) is None)

    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return what is left with all P, and then all Q."""
        width, factors, rest = values.width, self._all(values), self._rest(values)
        left = (Sent("rest", rest * width, "", is_summed=True),) if rest else ()
        if not factors:
            return (left,)
        p, q = (
            sum(f.rank * size for f, size in zip(factors, sizes, strict=True))
            for sizes in ([f.rows for f in factors], [f.columns for f in factors])
        )
        return (
            (*left, Sent("P", p * width, "", is_summed=True)),
            (Sent("Q", q * width, "", is_summed=True),),
        )

    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work of making one factor orthogonal, column by column, and the other of it.

        Before the first round what is left is put together, too.
        """
        factors, rest = self._all(values), self._rest(values)
        if number:
            products = tuple((f.columns, f.rank, f.rows) for f in factors)
            narrow = sum(f.rows * f.rank**2 for f in factors)
        else:
            products = tuple((f.rows, f.rank, f.columns) for f in factors)
            narrow = sum(f.columns * f.rank**2 for f in factors)
        copied = 0 if number else 2 * rest
        kernels = sum(3 * f.rank for f in factors) + (bool(rest) and not number)
        return CodecWork(float((copied + 3 * narrow) * values.width), kernels, products)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of the products of factors, and of putting what is left in its place."""
        factors, rest = self._all(values), self._rest(values)
        products = tuple((f.rows, f.columns, f.rank) for f in factors)
        kept = self.kept_bytes(values)
        return CodecWork(2.0 * rest * values.width + 2.0 * kept, 1 + len(factors), products)

    def kept_bytes(self, values: Values) -> int:
        """Return the bytes of all Q."""
        return sum(f.columns * f.rank for f in self._all(values)) * values.width

    def refusal(self, values: Values) -> str:
        """Refuse ranks at which no matrix would be sent as factors."""
        rank = self.compression_rank
        matrices = ((s[0], prod(s[1:])) for s in values.shapes if s[1:])
        most = max((-(-r * c // (LEAST_RATE * (r + c))) - 1 for r, c in matrices), default=0)
        if not self._all(values):
            allowed = f"1 to {most}" if most else "another parallel.compression"
            return (
                f"parallel.compression_rank = {rank}: no matrix has (rows + columns) × {rank} × "
                f"{LEAST_RATE} < rows × columns, so none would be compressed; allowed: {allowed}"
            )
        return ""

"""Matrices as products of two narrow ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from runtime.executor.codecs.coder import Coder, Place
from simulator.program.codecs.codec import Encoding
from simulator.program.codecs.power_sgd import Factors, PowerSgd

MOST_COLUMNS = 2
"""Up to so many columns are made orthogonal one by one, as in torch: that is faster than QR."""


class PowerSgdCoder(Coder):
    """Keeps the right factors from step to step; the first ones are random, and equal on all ranks.

    Attributes:
        kept: these factors, one after the other.
    """

    def __init__(self, encoding: Encoding, like: Tensor, place: Place) -> None:
        super().__init__(encoding, like, place)
        codec, begin = encoding.codec, 0
        assert isinstance(codec, PowerSgd)
        self._matrices: list[tuple[slice, Factors]] = []
        self._left: list[slice] = []
        for shape in encoding.shapes:
            where, factors = slice(begin, begin + prod(shape)), codec.factors(shape)
            if factors is None:
                self._left.append(where)
            else:
                self._matrices.append((where, factors))
            begin = where.stop
        random = torch.Generator().manual_seed(place.seed)
        drawn = [
            torch.randn(f.columns, f.rank, dtype=self.dtype, generator=random)
            for _, f in self._matrices
        ]
        flat = torch.cat([one.view(-1) for one in drawn]) if drawn else torch.empty(0)
        self.kept = flat.to(self.dtype).to(self.device)

    @property
    def nbytes(self) -> int:
        """The bytes of the right factors."""
        return self.kept.nbytes

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return what is left and the left factors, or, of the sum of these, the right ones."""
        sent: list[Tensor] = []
        if number:
            for p in self._views(come[-1], rows=True):
                orthogonalize(p)
            pairs = zip(self._of(values), self._views(come[-1], rows=True), strict=True)
            return [torch.cat([(m.t() @ p).view(-1) for m, p in pairs])]
        if self._left:
            sent.append(torch.cat([values[where] for where in self._left]))
        if self._matrices:
            for q in self._views(self.kept, rows=False):
                orthogonalize(q)
            pairs = zip(self._of(values), self._views(self.kept, rows=False), strict=True)
            sent.append(torch.cat([(m @ q).view(-1) for m, q in pairs]))
        return sent

    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the products of the factors of the sum, and the sum of what is left."""
        total, begin = torch.zeros(self.count, dtype=self.dtype, device=self.device), 0
        for where in self._left:
            end = begin + where.stop - where.start
            total[where] = come[0][begin:end]
            begin = end
        if self._matrices:
            left, right = (self._views(come[-2 + n], rows=not n) for n in (0, 1))
            for m, p, q in zip(self._of(total), left, right, strict=True):
                torch.matmul(p, q.t(), out=m)
            self.kept.copy_(come[-1])
        return total

    def _of(self, flat: Tensor) -> Iterator[Tensor]:
        """Yield the matrices in a flat tensor."""
        for where, factors in self._matrices:
            yield flat[where].view(factors.rows, factors.columns)

    def _views(self, flat: Tensor, rows: bool) -> Iterator[Tensor]:
        """Yield all left factors in a flat tensor, or all right ones."""
        begin = 0
        for _, factors in self._matrices:
            size = factors.rows if rows else factors.columns
            yield flat[begin : begin + size * factors.rank].view(size, factors.rank)
            begin += size * factors.rank


def orthogonalize(matrix: Tensor) -> None:
    """Make the columns of a matrix orthogonal and of length 1, in place; zeros stay zeros."""
    if matrix.shape[1] > MOST_COLUMNS and matrix.dtype.itemsize > 2:
        matrix.copy_(torch.linalg.qr(matrix).Q)
        return
    least = torch.finfo(matrix.dtype).tiny
    for number in range(matrix.shape[1]):
        column, rest = matrix[:, number : number + 1], matrix[:, number + 1 :]
        column /= torch.linalg.vector_norm(column).clamp(min=least)
        rest -= torch.sum(column * rest, dim=0) * column

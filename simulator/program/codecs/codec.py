"""A codec without torch: the bytes of what it sends, of what it keeps, and its work.

What it does with real tensors is in the file of the same name in `runtime/executor/codecs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

Shape = tuple[int, ...]
Product = tuple[int, int, int]
"""A matrix product (m × k) · (k × n), as (m, n, k)."""


@dataclass(frozen=True)
class Values:
    """A flat tensor that is encoded.

    Attributes:
        count: how many values it has.
        width: bytes of a value.
        shapes: of the parameters that are in it one after the other; none: it does not matter.
    """

    count: int
    width: int
    shapes: tuple[Shape, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes of all values."""
        return self.count * self.width


class Sent(NamedTuple):
    """One tensor that a codec sends.

    Attributes:
        label: what it is called.
        nbytes: its bytes on one rank.
        dtype: the type of its values.
        is_summed: it is summed over the ranks; else each rank gets those of all ranks.
        is_elementwise: value i of it stands for value i of the tensor that is encoded, so that a
            rank that keeps a part needs that part of the sum only.
    """

    label: str
    nbytes: int
    dtype: str
    is_summed: bool = False
    is_elementwise: bool = False


class CodecWork(NamedTuple):
    """The work of encoding or decoding.

    Attributes:
        nbytes: bytes read and written, without those of matrix products.
        kernels: so many kernels do that.
        products: matrix products.
    """

    nbytes: float
    kernels: int
    products: tuple[Product, ...] = ()


@dataclass(frozen=True)
class Codec(ABC):
    """A lossy form of a tensor, and how the sum of that of several ranks is found.

    What is sent goes out in rounds: the second is encoded from what has come of the first. The
    fields of a codec are keys of ``[parallel]``.
    """

    IS_BIASED: ClassVar[bool] = False
    """True if what is lost has a direction: it is then fed back unless the user says no."""
    IS_NARROW: ClassVar[str] = ""
    """The only type of values that it sends in place of others; empty: none."""

    IS_OF_SUM: ClassVar[bool] = False
    """True if what is sent is of the sum of all ranks, so that its end alone tells what is lost."""
    READS_SHAPES: ClassVar[bool] = False
    """True if it looks at the shapes of the parameters in a tensor."""

    @abstractmethod
    def rounds(self, values: Values) -> tuple[tuple[Sent, ...], ...]:
        """Return what is sent in each round."""

    @abstractmethod
    def encoding(self, values: Values, number: int) -> CodecWork:
        """Return the work before a round, without that of error feedback."""

    @abstractmethod
    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work behind the last round, of what so many ranks have sent."""

    def kept_bytes(self, values: Values) -> int:
        """Return the bytes that it keeps from step to step, without those of error feedback."""
        return 0

    def refusal(self, values: Values) -> str:
        """Return why a tensor cannot be encoded; empty: it can be."""
        return ""


@dataclass(frozen=True)
class Encoding:
    """The way in which a task encodes or decodes.

    Attributes:
        codec: does it.
        width: bytes of a value.
        feeds_back: what is lost is added to what is encoded the next time.
        round: of an `ENCODE`, the number of what is sent next.
        shapes: of the parameters in the tensor, where the codec asks for them.
    """

    codec: Codec
    width: int
    feeds_back: bool = False
    round: int = 0
    shapes: tuple[Shape, ...] = ()

    def values(self, nbytes: int) -> Values:
        """Return the tensor of so many bytes that is encoded."""
        return Values(nbytes // self.width, self.width, self.shapes)

    def sent(self, values: Values) -> tuple[Sent, ...]:
        """Return what is sent in this round."""
        return self.codec.rounds(values)[self.round]

    def encoding(self, values: Values) -> CodecWork:
        """Return the work of an `ENCODE`.

        The error is added (two tensors read, one written). Unless it is that of the sum, what is
        sent is taken off again, for which it is decoded once more.
        """
        work = self.codec.encoding(values, self.round)
        if not self.feeds_back or self.round:
            return work
        moved, kernels = (
            work.nbytes + 3.0 * values.nbytes,
            work.kernels + 1,
        )
        if not self.codec.IS_OF_SUM:
            again = self.codec.decoding(values, 1)
            moved += again.nbytes + 3.0 * values.nbytes
            kernels += again.kernels + 1
        return CodecWork(moved, kernels, work.products)

    def decoding(self, values: Values, ranks: int) -> CodecWork:
        """Return the work of a `DECODE`.

        The error of a sum is what was encoded minus this rank's share of it.
        """
        work = self.codec.decoding(values, ranks)
        if not self.feeds_back or not self.codec.IS_OF_SUM:
            return work
        return work._replace(nbytes=work.nbytes + 3.0 * values.nbytes, kernels=work.kernels + 1)

    def decoding_parts(self, part: Values, ranks: int) -> CodecWork:
        """Return the work of a `DECODE` of parts of one tensor, each sent by another rank.

        Each is decoded, and copied to its place.
        """
        of_part = self.codec.decoding(part, 1)
        moved = ranks * (of_part.nbytes + 2.0 * part.nbytes)
        return CodecWork(moved, ranks * (of_part.kernels + 1), ranks * of_part.products)

    def kept_bytes(self, values: Values) -> int:
        """Return the bytes that are kept from step to step: errors, and what the codec keeps."""
        return self.codec.kept_bytes(values) + self.feeds_back * values.nbytes

"""A coder does with the tensors of one bucket what a codec says; their sizes are the codec's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simulator.program.codecs.codec import Encoding


@dataclass(frozen=True)
class Place:
    """The rank of a coder, among others.

    Attributes:
        number: of its rank among those that exchange what is encoded.
        seed: equal on all of them.
    """

    number: int
    seed: int


class Coder(ABC):
    """Encodes what a rank has of a bucket, and decodes what all ranks have sent.

    Args:
        encoding: says how.
        like: a tensor as those that will be encoded, flat.
        place: the rank.
    """

    def __init__(self, encoding: Encoding, like: Tensor, place: Place) -> None:
        self.encoding, self.place = encoding, place
        self.dtype, self.device, self.count = like.dtype, like.device, like.numel()

    @property
    def nbytes(self) -> int:
        """The bytes of what is kept from step to step."""
        return 0

    @abstractmethod
    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return what is sent in a round.

        Args:
            values: what is encoded; the same in all rounds.
            number: of the round.
            come: what the rounds before have brought.
        """

    @abstractmethod
    def total(self, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum that so many ranks have sent, from what all rounds have brought.

        Of one rank that is what its own tensors stand for.
        """

    def parts(self, come: Sequence[Tensor], ranks: int) -> Iterator[Tensor]:
        """Yield what the tensors of each of so many ranks stand for, in the order of ranks."""
        for mine in zip(*(tensor.chunk(ranks) for tensor in come), strict=True):
            yield self.total(mine, 1)


class ErrorFeedback:
    """A coder, and what it has lost, which is added to what it encodes the next time.

    Every rank keeps what is lost of its own part. Where the sum of all is encoded nobody knows
    that; then it is what a rank has given minus its equal share of the sum.
    So what all have sent and all errors together are what all have given.

    Args:
        coder: encodes.
        like: a tensor as those that will be encoded.
    """

    def __init__(self, coder: Coder, like: Tensor) -> None:
        self.coder = coder
        self.error = torch.zeros_like(like) if coder.encoding.feeds_back else None

    @property
    def nbytes(self) -> int:
        """The bytes of what is kept from step to step."""
        return self.coder.nbytes + (0 if self.error is None else self.error.nbytes)

    def encode(self, values: Tensor, number: int, come: Sequence[Tensor]) -> list[Tensor]:
        """Return what is sent in a round; the error is added to `values` before the first.

        See `Coder.encode`.
        """
        if self.error is not None and number == 0:
            values.add_(self.error)
        sent = self.coder.encode(values, number, come)
        if self.error is not None and not self.coder.encoding.codec.IS_OF_SUM:
            torch.sub(values, self.coder.total(sent, 1), out=self.error)
        return sent

    def total(self, values: Tensor, come: Sequence[Tensor], ranks: int) -> Tensor:
        """Return the sum of what so many ranks have sent.

        Args:
            values: what this rank has encoded.
            come: what all rounds have brought.
            ranks: how many.
        """
        total = self.coder.total(come, ranks)
        if self.error is not None and self.coder.encoding.codec.IS_OF_SUM:
            torch.sub(values, total, alpha=1.0 / ranks, out=self.error)
        return total

"""Norms of the heads of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.workloads.anatomy import Anatomy
from simulator.workloads.attention import Form


@dataclass(frozen=True)
class HeadNorm:
    """The work and memory that norms of queries and keys add to a layer that makes both, if any.

    Attributes:
        tokens: of a microbatch on a rank.
        queries, keys: columns of a rank.
        width, wide: bytes of a value, and of one where 16 bits are too few.
    """

    anatomy: Anatomy
    tokens: int
    queries: int
    keys: int
    width: int
    wide: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights: one for each value of a head of queries, and of keys."""
        return ((self.anatomy.head,),) * 2 if self.anatomy.qk_norm else ()

    @property
    def kernels(self) -> int:
        """One for queries, one for keys."""
        return 2 * self.anatomy.qk_norm

    @property
    def moved_bytes(self) -> int:
        """Bytes that are read and written."""
        return 2 * self.tokens * (self.queries + self.keys) * self.width * self.anatomy.qk_norm

    def saved_bytes(self, form: Form) -> int:
        """Return what is kept besides what attention keeps: the input, and one number a head.

        Where attention is computed again it keeps its own inputs, of which V is in that input.
        """
        kept = self.queries + self.keys * (1 if form == "recomputed" else 2)
        rows = (self.queries + self.keys) // self.anatomy.head
        return self.tokens * (kept * self.width + rows * self.wide) * self.anatomy.qk_norm

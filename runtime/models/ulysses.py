"""Attention between two all-to-alls, as in `simulator.workloads.ulysses`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runtime.models.attention import attend
from runtime.models.deferral import Linear
from runtime.models.heads import Keys, Projection, Queries
from runtime.models.recompute import run_again
from runtime.models.rms_norm import RmsNorm
from runtime.models.rotary import Rotary


class Packed(nn.Module):
    """Q, K and V, sorted by the context rank that has their heads.

    (batch, tokens, hidden) → (context, batch, tokens, 3, heads × width).
    """

    def __init__(self, linear: Linear, ranks: int):
        super().__init__()
        self.linear, self.ranks = linear, ranks

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (context, batch, tokens, 3, heads × width)."""
        made: Tensor = self.linear(x)
        batch, sequence, _ = made.shape
        sorted_ = made.view(batch, sequence, 3, self.ranks, -1).permute(3, 0, 1, 2, 4)
        return sorted_.contiguous()


class SortedQueries(Queries):
    """Q, sorted by the context rank that has their heads."""

    def __init__(self, linear: Linear | None, norm: RmsNorm | None, rotary: Rotary, ranks: int):
        super().__init__(linear, norm, rotary)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (context, batch, tokens, heads × width)."""
        made = super().forward(x)
        return made.view(*made.shape[:2], self.ranks, -1).permute(2, 0, 1, 3).contiguous()


class SortedKeys(Keys):
    """K and V, sorted by the context rank that has their heads, and repeated if too few."""

    def __init__(self, linear: Linear | None, norm: RmsNorm | None, rotary: Rotary, ranks: int):
        super().__init__(linear, norm, rotary)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (context, batch, tokens, 2 × heads × width)."""
        assert self.rotary is not None
        made = super().forward(x)
        batch, sequence, head = *made.shape[:2], self.rotary.head
        parted = made.view(batch, sequence, 2, -1, 1, head)
        repeated = parted.expand(-1, -1, -1, -1, max(self.ranks // parted.shape[3], 1), -1)
        by_rank = repeated.reshape(batch, sequence, 2, self.ranks, -1, head)
        return by_rank.permute(3, 0, 1, 2, 4, 5).flatten(3).contiguous()


class Core(nn.Module):
    """Attention of this rank's heads over the whole sequence.

    Q, K and V come packed, (context, batch, tokens of a rank, 3, heads × width), or Q, and K with
    V, apart; (context, batch, tokens of a rank, heads × width) goes out.
    """

    def __init__(self, heads: int, kv_heads: int, mask: Tensor | None, recomputed: bool):
        super().__init__()
        self.heads, self.kv_heads, self.recomputed = heads, kv_heads, recomputed
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Attend, keeping the scores for the backward pass or computing them again."""
        mix = self._mix if len(inputs) == 1 else self._mix_apart
        return run_again(mix, *inputs) if self.recomputed else mix(*inputs)

    def _mix(self, packed: Tensor) -> Tensor:
        ranks, batch, tokens, _, columns = packed.shape
        parted = packed.view(ranks, batch, tokens, 3, self.heads, columns // self.heads)
        parted = parted.permute(3, 1, 4, 0, 2, 5).contiguous()
        q, k, v = parted.view(3, batch * self.heads, ranks * tokens, -1)
        return self._attend(q, k, v, packed)

    def _mix_apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        ranks, batch, tokens, _ = queries.shape
        parts = zip((queries, *keys.chunk(2, dim=3)), self._counts, strict=True)
        q, k, v = (
            part.view(*part.shape[:3], count, -1)
            .permute(1, 3, 0, 2, 4)
            .clone(memory_format=torch.contiguous_format)
            .view(batch * count, ranks * tokens, -1)
            for part, count in parts
        )
        return self._attend(q, k, v, queries)

    @property
    def _counts(self) -> tuple[int, int, int]:
        return self.heads, self.kv_heads, self.kv_heads

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, like: Tensor) -> Tensor:
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        ranks, batch, tokens = like.shape[:3]
        mixed = attend(q, k, v, mask).view(batch, self.heads, ranks, tokens, -1)
        return mixed.permute(2, 0, 3, 1, 4).reshape(ranks, batch, tokens, -1)


class Merged(Projection):
    """The output projection of heads from all ranks: (context, batch, tokens, heads × width)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (context, batch, tokens, heads × width) to (batch, tokens, hidden), without bias."""
        merged = x.permute(1, 2, 0, 3).clone(memory_format=torch.contiguous_format)
        made: Tensor = self.linear(merged.flatten(2))
        return made

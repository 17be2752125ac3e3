"""Q, K and V as modules of their own, and the projection, as in `simulator.workloads.heads`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from runtime.models.attention import attend, flash_attention, merge_heads
from runtime.models.deferral import Linear
from runtime.models.recompute import run_again
from runtime.models.rms_norm import RmsNorm
from runtime.models.rotary import Rotary
from runtime.models.share import Share, linear_of
from simulator.workloads.attention import Form


class Queries(nn.Module):
    """Q of this rank's heads: made, normed, turned by their positions, or some of these.

    Args:
        linear: makes them; None: they come in.
        norm: of each head; None: there is none.
        rotary: turns them; None: nothing does.
    """

    def __init__(self, linear: Linear | None, norm: RmsNorm | None, rotary: Rotary | None):
        super().__init__()
        self.linear, self.norm, self.rotary = linear, norm, rotary

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (batch, tokens, columns of this rank)."""
        made: Tensor = x if self.linear is None else self.linear(x)
        return made if self.rotary is None else self.turned(made, self.rotary)

    def turned(self, made: Tensor, rotary: Rotary) -> Tensor:
        """Norm and turn (batch, tokens, heads × width)."""
        heads = made.view(*made.shape[:2], -1, rotary.head)
        return rotary.turn(heads if self.norm is None else self.norm(heads)).flatten(2)


class Keys(Queries):
    """K and V of this rank's heads side by side, K turned by their positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (batch, tokens, 2 × columns of this rank)."""
        made: Tensor = x if self.linear is None else self.linear(x)
        if self.rotary is None:
            return made
        keys, values = made.chunk(2, dim=2)
        return torch.cat([self.turned(keys, self.rotary), values], dim=2)


class Projection(nn.Module):
    """The output projection: (batch, tokens, heads × width) → an addend of the output."""

    def __init__(self, whole: nn.Linear, share: Share):
        super().__init__()
        self.linear = share.rows(whole)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, heads × width) to (batch, tokens, hidden), without bias."""
        made: Tensor = self.linear(x)
        return made


class Mixed(nn.Module):
    """Attention of Q to K and V, which come apart, and the output projection."""

    def __init__(
        self,
        whole: nn.Linear,
        share: Share,
        heads: int,
        kv_heads: int,
        mask: Tensor | None,
        form: Form,
        window: bool,
    ):
        super().__init__()
        self.linear, self.form, self.window = share.rows(whole), form, window
        self.heads, self.kv_heads = heads, kv_heads
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Map (batch, tokens, columns), twice, to (batch, tokens, hidden), without bias."""
        mix = partial(self._mix, flash=self.form == "flash")
        recomputed = self.form == "recomputed"
        mixed = run_again(mix, queries, keys) if recomputed else mix(queries, keys)
        made: Tensor = self.linear(mixed)
        return made

    def _mix(self, queries: Tensor, keys: Tensor, flash: bool) -> Tensor:
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        q, k, v = (
            part.view(*part.shape[:2], count, -1)
            for part, count in zip(
                (queries, *keys.chunk(2, dim=2)),
                (self.heads, self.kv_heads, self.kv_heads),
                strict=True,
            )
        )
        if flash:
            return flash_attention(q, k, v, mask, self.window)
        q, k, v = (
            part.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(0, 1)
            for part in (q, k, v)
        )
        return merge_heads(attend(q, k, v, mask), self.heads)


def queries_of(whole: nn.Linear, share: Share, columns: int) -> Linear:
    """Return what makes this rank's Q, cut out of the product that makes Q, K and V."""
    bias = None if whole.bias is None else whole.bias[:columns]
    return share.columns(linear_of(whole.weight[:columns], bias))


def keys_of(whole: nn.Linear, share: Share, columns: int, kv_heads: int) -> Linear:
    """Return what makes this rank's K and V; neighbours have the same where heads are too few."""
    bias = None if whole.bias is None else whole.bias[columns:]
    weight = whole.weight[columns:]
    half = len(weight) // 2
    return share.among(kv_heads).columns(linear_of(weight, bias), (half, half))

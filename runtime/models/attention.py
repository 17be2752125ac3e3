"""Multi-head attention, computed explicitly: softmax of Q·Kᵀ, then ·V."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from runtime.recompute import run_again


def split_heads(packed: Tensor, heads: int) -> Tensor:
    """(batch, sequence, heads × width) → (batch × heads, sequence, width)."""
    batch, sequence, hidden = packed.shape
    width = hidden // heads
    parted = packed.view(batch, sequence, heads, width).transpose(1, 2)
    return parted.reshape(batch * heads, sequence, width)


def merge_heads(parted: Tensor, heads: int) -> Tensor:
    """The reverse of `split_heads`."""
    batch, sequence, width = parted.shape[0] // heads, *parted.shape[1:]
    merged = parted.view(batch, heads, sequence, width).transpose(1, 2)
    return merged.reshape(batch, sequence, heads * width)


def causal_mask(sequence: int) -> Tensor:
    """0 where a row may attend to a column, else minus infinity, (sequence, sequence)."""
    future = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
    return torch.zeros(sequence, sequence).masked_fill(future, float("-inf"))


def self_attention(
    qkv: Tensor, heads: int, mask: Tensor | None = None, again: bool = False
) -> Tensor:
    """(batch, sequence, 3 × hidden) → (batch, sequence, hidden).

    Args:
        mask: added to the scores, (sequence, sequence); None: every token attends to all.
        again: keep Q, K and V only, and compute all this again in the backward pass
            (Korthikanti et al. 2022, section 5).
    """
    core = partial(_self_attention, heads=heads, mask=mask)
    return run_again(core, qkv) if again else core(qkv)


def _self_attention(qkv: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    q, k, v = (split_heads(part, heads) for part in qkv.chunk(3, dim=2))
    return merge_heads(attend(q, k, v, mask), heads)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Of every head: three times (batch × heads, sequence, width) → the same shape."""
    scale = 1 / math.sqrt(q.shape[2])
    if mask is None:  # beta = 0: the first argument is not even read
        scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    else:
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(dim=-1), v)

"""Multi-head attention: softmax of Q·Kᵀ, then ·V, step by step or in one kernel."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from runtime.models.recompute import run_again
from simulator.workloads.attention import Form


def split_heads(packed: Tensor, heads: int) -> Tensor:
    """Reshape (batch, sequence, heads × width) to (batch × heads, sequence, width)."""
    batch, sequence, hidden = packed.shape
    width = hidden // heads
    parted = packed.view(batch, sequence, heads, width).transpose(1, 2)
    return parted.reshape(batch * heads, sequence, width)


def merge_heads(parted: Tensor, heads: int) -> Tensor:
    """Undo `split_heads`: (batch × heads, sequence, width) to (batch, sequence, heads × width)."""
    batch, sequence, width = parted.shape[0] // heads, *parted.shape[1:]
    merged = parted.view(batch, heads, sequence, width).transpose(1, 2)
    return merged.reshape(batch, sequence, heads * width)


def causal_mask(sequence: int) -> Tensor:
    """Return the mask, (sequence, sequence): 0 where a row may attend to a column, else −∞."""
    future = torch.ones(sequence, sequence, dtype=torch.bool).triu(1)
    return torch.zeros(sequence, sequence).masked_fill(future, float("-inf"))


def self_attention(qkv: Tensor, heads: int, mask: Tensor | None, form: Form) -> Tensor:
    """Attend within each sequence: (batch, sequence, 3 × hidden) → (batch, sequence, hidden).

    Args:
        qkv: Q, K and V side by side in the last dimension.
        heads: number of heads in `qkv`.
        mask: a causal mask, (sequence, sequence), that is added to the scores; None: every
            token attends to all.
        form: the implementation, see `simulator.workloads.attention`.
    """
    if form == "flash":
        return _flash_attention(qkv, heads, mask is not None)
    core = partial(_self_attention, heads=heads, mask=mask)
    return run_again(core, qkv) if form == "recomputed" else core(qkv)


def _self_attention(qkv: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    q, k, v = (split_heads(part, heads) for part in qkv.chunk(3, dim=2))
    return merge_heads(attend(q, k, v, mask), heads)


def _flash_attention(qkv: Tensor, heads: int, causal: bool) -> Tensor:
    """Attend in one kernel; the backward pass needs Q, K, V, output and log-sum-exp per row."""
    batch, sequence, _ = qkv.shape
    parts = (part.view(batch, sequence, heads, -1) for part in qkv.chunk(3, dim=2))
    q, k, v = (part.transpose(1, 2) for part in parts)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # or an error: no other keeps the same
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(Q·Kᵀ / √width + mask)·V; all are (batch × heads, sequence, width)."""
    scale = 1 / math.sqrt(q.shape[2])
    if mask is None:  # beta = 0: the first argument is not even read
        scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    else:
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(dim=-1), v)

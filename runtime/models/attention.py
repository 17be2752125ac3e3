"""Multi-head attention: softmax of Q·Kᵀ, then ·V, step by step or in one kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from runtime.models.recompute import run_again
from simulator.workloads.attention import Form

Turn = Callable[[Tensor], Tensor]
"""A function that turns heads, (batch, sequence, heads, width), by their positions."""


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


def causal_mask(sequence: int, window: int | None = None) -> Tensor:
    """Return the mask, (sequence, sequence): 0 where a row may attend to a column, else −∞.

    Args:
        sequence: number of tokens.
        window: how many a row may attend to, itself included; None: all before it.
    """
    every = torch.ones(sequence, sequence, dtype=torch.bool)
    hidden = every.triu(1)
    if window is not None:
        hidden |= every.tril(-window)
    return torch.zeros(sequence, sequence).masked_fill(hidden, float("-inf"))


def self_attention(
    qkv: Tensor,
    heads: int,
    mask: Tensor | None,
    form: Form,
    kv_heads: int = 0,
    turn: Turn | None = None,
    norms: tuple[Turn, Turn] | None = None,
    window: bool = False,
) -> Tensor:
    """Attend within each sequence: (batch, sequence, columns) → (batch, sequence, heads × width).

    Args:
        qkv: Q, K and V side by side in the last dimension.
        heads: number of heads in Q.
        mask: a causal mask, (sequence, sequence), that is added to the scores; None: every
            token attends to all.
        form: the implementation, see `simulator.workloads.attention`.
        kv_heads: number of heads in K and V, each for as many of Q; 0: `heads`.
        turn: turns Q and K by their positions; None: nothing does.
        norms: of the heads of Q and of K, before they are turned; None: there are none.
        window: the mask is more than causal.
    """
    kv_heads = kv_heads or heads
    parted = qkv.view(*qkv.shape[:2], heads + 2 * kv_heads, -1)
    q, k, v = torch.split(parted, [heads, kv_heads, kv_heads], dim=2)
    if norms is not None:
        q, k = norms[0](q), norms[1](k)
    core = partial(_self_attention, mask=mask, turn=turn)
    if form == "flash":
        return core(q, k, v, flash=True, window=window)
    return run_again(core, q, k, v) if form == "recomputed" else core(q, k, v)


def _self_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    turn: Turn | None,
    flash: bool = False,
    window: bool = False,
) -> Tensor:
    heads = q.shape[2]
    if turn is not None:
        q, k = turn(q), turn(k)
        # A view of V would keep Q and K of before in memory, besides those that were turned.
        v = v.clone(memory_format=torch.contiguous_format)
    if flash:
        return flash_attention(q, k, v, mask, window)
    q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))
    return merge_heads(attend(q, k, v, mask), heads)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, window: bool = False
) -> Tensor:
    """Attend in one kernel; the backward pass needs Q, K, V, output and log-sum-exp per row.

    The kernel makes a causal mask itself, but not that of a window.
    """
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # or an error: no other keeps the same
        mixed = functional.scaled_dot_product_attention(
            *(q, k, v, mask if window else None),
            is_causal=mask is not None and not window,
            enable_gqa=q.shape[1] > k.shape[1],
        )
    return mixed.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(Q·Kᵀ / √width + mask)·V, (batch × heads, sequence, width), as Q is.

    K and V may have fewer heads, each for as many of Q, whose rows then follow each other.
    """
    scale, shape = 1 / math.sqrt(q.shape[2]), q.shape
    group = len(q) // len(k)
    q = q.reshape(len(k), group * shape[1], shape[2])
    if mask is None:  # beta = 0: the first argument is not even read
        scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    else:
        rows = mask if group == 1 else mask.repeat(group, 1)
        scores = torch.baddbmm(rows, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(dim=-1), v).view(shape)

"""The steps of ring attention, as in `simulator.workloads.ring`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.attention import causal_mask, merge_heads, split_heads

ALL = slice(None)


class Block(nn.Module):
    """One step of ring attention: this rank's queries and the keys and values that it holds.

    Args:
        heads: number of this rank's heads of queries.
        kv_heads: number of its heads of keys and values, each for as many of queries.
        tokens: tokens of a sequence that this rank has.
        step: number of the step; in step 0 the keys and values are this rank's own.
        rank: position in the context group.
        ranks: size of the context group.
        causal: whether a token attends only to earlier ones.
        recomputed: keep the log-sum-exp of the scores instead of their exponentials, which the
            backward pass then computes again.
    """

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        tokens: int,
        step: int,
        rank: int,
        ranks: int,
        causal: bool,
        recomputed: bool,
    ):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.last, self.recomputed = step == ranks - 1, recomputed
        self.queries = self.keys = ALL
        source = (rank - step) % ranks  # of the keys and values
        if causal and step and source < rank:  # its second chunk is later than both of ours
            self.keys = slice(0, tokens // 2)
        elif causal and step:  # both of its chunks are later than our first one
            self.queries = slice(tokens // 2, tokens)
        mask = causal_mask(tokens) if causal and not step else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, queries: Tensor, keys: Tensor, state: Tensor | None = None) -> Tensor:
        """Merge this step into `state`; the last one returns (batch, tokens, hidden)."""
        made: Tensor = _Block.apply(queries, keys, state, self.mask, self)  # type: ignore[no-untyped-call]
        return made


class _Block(torch.autograd.Function):
    """Attention to some of the keys, merged with the state (O, L).

    O is the output for the keys before, L the logarithm of their sum of exponentials.
    With scores S: L' = log(e^L + Σ e^S), P = e^(S - L'), a = e^(L - L'), O' = a·O + P·V. Back,
    with D = dO'·O' - dL' per row (compare Dao 2023, "FlashAttention-2", section 3.1):
    dV = Pᵀ·dO', dS = P ∘ (dO'·Vᵀ - D), dO = a·dO', dL = a·(dO'·O - D).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, state: Tensor | None, mask: Tensor | None, how: Block
    ) -> Tensor:
        query, key, value = _operands(q, kv, how)
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = _scores(query, key, mask).to(wide)
        total = scores.logsumexp(2, keepdim=True)
        if state is not None:
            total = torch.logaddexp(state[:, how.queries, -1:], total)
        probabilities = (scores - total).exp_().to(q.dtype)
        mixed = _product(probabilities, value).to(wide)
        kept = None
        if state is None:
            made = torch.cat([mixed, total], 2)
        else:
            made = state.clone()
            made[:, how.queries, -1:] = total
            kept = (state[..., -1:] - made[..., -1:]).exp_()
            made[..., :-1] *= kept
            made[:, how.queries, :-1] += mixed
        if how.recomputed:
            ctx.save_for_backward(q, kv, state, mask, made[..., -1:].clone())
        else:
            ctx.save_for_backward(q, kv, state, kept, probabilities)
        ctx.how = how
        if how.last:
            # Contiguous: of one head it would be a view of the whole state.
            return merge_heads(made[..., :-1].to(q.dtype), how.heads).contiguous()
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        how: Block = ctx.how
        q, kv, state, *saved = ctx.saved_tensors
        kept: Any
        query, key, value = _operands(q, kv, how)
        if how.recomputed:
            mask, total = saved
            probabilities = (_scores(query, key, mask) - total[:, how.queries]).exp_().to(q.dtype)
            kept = None if state is None else (state[..., -1:] - total).exp_()
        else:
            kept, probabilities = saved
        (gradient,) = gradients
        if how.last:
            into_output = split_heads(gradient, how.heads)
            into_total = torch.zeros_like(into_output[..., :1])
        else:
            into_output, into_total = gradient[..., :-1], gradient[..., -1:]
        mine = into_output[:, how.queries].to(q.dtype)
        into_value = _product_of_left(probabilities, mine, len(value))
        into_scores = _product(mine, value.transpose(1, 2))
        rest = -into_total.to(torch.promote_types(q.dtype, torch.float32))
        into_state = None
        if state is not None:
            along = (into_output * state[..., :-1]).sum(2, keepdim=True)
            rest += kept * along
        rest[:, how.queries] += (probabilities * into_scores).sum(2, keepdim=True)
        if state is not None:
            into_state = torch.cat([kept * into_output, kept * (along - rest)], 2)
        into_scores -= rest[:, how.queries].to(q.dtype)
        into_scores *= probabilities
        into_scores *= 1 / math.sqrt(query.shape[2])
        into_query = _product(into_scores, key)
        into_key = _product_of_left(into_scores, query, len(key))
        keys = [_whole(x, how.keys, kv.shape[1], how.kv_heads) for x in (into_key, into_value)]
        queries = _whole(into_query, how.queries, q.shape[1], how.heads)
        return queries, torch.cat(keys, 2), into_state, None, None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply (heads, rows, k) by (fewer heads, k, columns), each of which serves several."""
    grouped = left.reshape(len(right), -1, left.shape[2])
    return torch.bmm(grouped, right).view(*left.shape[:2], right.shape[2])


def _product_of_left(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """Multiply the transpose of (heads, rows, k) by (heads, rows, columns), summed over groups."""
    first, second = (part.reshape(heads, -1, part.shape[2]) for part in (left, right))
    return torch.bmm(first.transpose(1, 2), second)


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    scores = _product(query, key.transpose(1, 2)).mul_(1 / math.sqrt(query.shape[2]))
    return scores if mask is None else scores + mask


def _operands(q: Tensor, kv: Tensor, how: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, keys and values of the step, each (batch × heads, tokens, width)."""
    key, value = (split_heads(part, how.kv_heads)[:, how.keys] for part in kv.chunk(2, dim=2))
    return split_heads(q, how.heads)[:, how.queries], key, value


def _whole(part: Tensor, positions: slice, tokens: int, heads: int) -> Tensor:
    """Fill the gradient of some tokens up with zeros: (batch, tokens, heads × width)."""
    if positions == ALL:
        return merge_heads(part, heads)
    whole = part.new_zeros(part.shape[0], tokens, part.shape[2])
    whole[:, positions] = part
    return merge_heads(whole, heads)

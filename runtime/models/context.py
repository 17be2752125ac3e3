"""Attention over a sequence that is split over ranks, as in `simulator.workloads.context`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runtime.models.attention import attend, causal_mask, merge_heads, split_heads
from runtime.models.recompute import run_again
from runtime.models.transformer import Share, linear_of
from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import form
from simulator.workloads.context import zigzag

ALL = slice(None)


class Queries(nn.Module):
    """The linear layer for one of Q, K and V of this rank's heads, or for several side by side."""

    def __init__(self, whole: nn.Linear, share: Share, begin: int, end: int):
        super().__init__()
        hidden = whole.in_features
        rows = slice(begin * hidden, end * hidden)
        self.linear = share.columns(linear_of(whole.weight[rows], whole.bias[rows]), end - begin)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (batch, tokens, columns of this rank)."""
        made: Tensor = self.linear(x)
        return made


class Projection(nn.Module):
    """The output projection: (batch, tokens, heads × width) → an addend of the output."""

    def __init__(self, whole: nn.Linear, share: Share):
        super().__init__()
        self.linear = share.rows(whole)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, heads × width) to (batch, tokens, hidden), without bias."""
        made: Tensor = self.linear(x)
        return made


class Block(nn.Module):
    """One step of ring attention: this rank's queries and the keys and values that it holds.

    Args:
        heads: number of this rank's heads.
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
        tokens: int,
        step: int,
        rank: int,
        ranks: int,
        causal: bool,
        recomputed: bool,
    ):
        super().__init__()
        self.heads, self.last, self.recomputed = heads, step == ranks - 1, recomputed
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
        mixed = torch.bmm(probabilities, value).to(wide)
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
        into_value = torch.bmm(probabilities.transpose(1, 2), mine)
        into_scores = torch.bmm(mine, value.transpose(1, 2))
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
        into_query = torch.bmm(into_scores, key)
        into_key = torch.bmm(into_scores.transpose(1, 2), query)
        keys = [_whole(x, how.keys, kv.shape[1], how.heads) for x in (into_key, into_value)]
        queries = _whole(into_query, how.queries, q.shape[1], how.heads)
        return queries, torch.cat(keys, 2), into_state, None, None


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(1 / math.sqrt(query.shape[2]))
    return scores if mask is None else scores + mask


def _operands(q: Tensor, kv: Tensor, how: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, keys and values of the step, each (batch × heads, tokens, width)."""
    key, value = (split_heads(part, how.heads)[:, how.keys] for part in kv.chunk(2, dim=2))
    return split_heads(q, how.heads)[:, how.queries], key, value


def _whole(part: Tensor, positions: slice, tokens: int, heads: int) -> Tensor:
    """Fill the gradient of some tokens up with zeros: (batch, tokens, heads × width)."""
    if positions == ALL:
        return merge_heads(part, heads)
    whole = part.new_zeros(part.shape[0], tokens, part.shape[2])
    whole[:, positions] = part
    return merge_heads(whole, heads)


class Packed(Queries):
    """Q, K and V, sorted by the context rank that has their heads.

    (batch, tokens, hidden) → (context, batch, tokens, 3, heads × width).
    """

    def __init__(self, whole: nn.Linear, share: Share, ranks: int):
        super().__init__(whole, share, 0, 3)
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to (context, batch, tokens, 3, heads × width)."""
        made: Tensor = self.linear(x)
        batch, sequence, _ = made.shape
        sorted_ = made.view(batch, sequence, 3, self.ranks, -1).permute(3, 0, 1, 2, 4)
        return sorted_.contiguous()


class Core(nn.Module):
    """Attention of this rank's heads over the whole sequence.

    (context, batch, tokens of a rank, 3, heads × width) → (context, batch, tokens of a rank,
    heads × width).
    """

    def __init__(self, heads: int, mask: Tensor | None, recomputed: bool):
        super().__init__()
        self.heads, self.recomputed = heads, recomputed
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, packed: Tensor) -> Tensor:
        """Attend, keeping the scores for the backward pass or computing them again."""
        return run_again(self._mix, packed) if self.recomputed else self._mix(packed)

    def _mix(self, packed: Tensor) -> Tensor:
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        ranks, batch, tokens, _, columns = packed.shape
        parted = packed.view(ranks, batch, tokens, 3, self.heads, columns // self.heads)
        parted = parted.permute(3, 1, 4, 0, 2, 5).contiguous()
        q, k, v = parted.view(3, batch * self.heads, ranks * tokens, -1)
        mixed = attend(q, k, v, mask).view(batch, self.heads, ranks, tokens, -1)
        return mixed.permute(2, 0, 3, 1, 4).reshape(ranks, batch, tokens, columns)


class Merged(Projection):
    """The output projection of heads from all ranks: (context, batch, tokens, heads × width)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (context, batch, tokens, heads × width) to (batch, tokens, hidden), without bias."""
        merged = x.permute(1, 2, 0, 3).clone(memory_format=torch.contiguous_format)
        made: Tensor = self.linear(merged.flatten(2))
        return made


def shard_attention(
    whole: nn.Module, part: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module | None:
    """Return what a rank has of an attention layer; None: `part` is not one of this file's."""
    share, ranks = Share(experiment, coordinate), experiment.parallel.context
    attributes = dict(whole.named_children())
    name, _, step = part.partition("-")
    recomputed = form(experiment) == "recomputed"
    if name == "block":
        workload, rank = experiment.workload, coordinate.get("context", 0)
        heads, tokens = workload.heads // share.count, workload.sequence // ranks
        return Block(heads, tokens, int(step), rank, ranks, zigzag(experiment), recomputed)
    if name == "core":
        heads = experiment.workload.heads // share.count // ranks
        return Core(heads, getattr(whole, "mask", None), recomputed)
    if name in ("projection", "merged"):
        projection = attributes["projection"]
        assert isinstance(projection, nn.Linear)
        return {"projection": Projection, "merged": Merged}[name](projection, share)
    if name in ("queries", "keys", "packed"):
        qkv = attributes["qkv"]
        assert isinstance(qkv, nn.Linear)
        if name == "packed":
            return Packed(qkv, share, ranks)
        return Queries(qkv, share, *((0, 1) if name == "queries" else (1, 3)))
    return None

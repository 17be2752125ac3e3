"""Parts of transformer layers that one rank has, cut out of the layers of gpt or bert.

`simulator.workloads.transformer` describes the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models.attention import self_attention
from runtime.models.deferral import Linear
from runtime.models.loss import cross_entropy, wide
from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import Form
from simulator.workloads.context import zigzag

IGNORED = -100
"""The target of a row that has none here; torch's cross-entropy skips it."""


class Share:
    """One rank's share of rows or columns: number `index` of `count` equal ones along a mesh axis.

    Attributes:
        index: position of the share.
        count: number of shares.
        positions: positions in a sequence of the tokens that this rank has.
        sequence: length of a whole sequence.
        ranks: number of context ranks that a sequence is split over.
    """

    def __init__(self, experiment: Experiment, coordinate: Mapping[str, int], axis: str = "tensor"):
        self.index = coordinate.get(axis, 0)
        self.count: int = getattr(experiment.parallel, axis)
        self.sequence, self.ranks = experiment.workload.sequence, experiment.parallel.context
        rank, everywhere = coordinate.get("context", 0), torch.arange(self.sequence)
        self.positions = everywhere.chunk(self.ranks)[rank]
        if zigzag(experiment):
            chunks = everywhere.chunk(2 * self.ranks)
            self.positions = torch.cat([chunks[rank], chunks[2 * self.ranks - 1 - rank]])

    def of(self, weight: Tensor, dim: int = 0, groups: int = 1) -> Tensor:
        """Return this share of `weight` along `dim`, taken from each of `groups` equal groups.

        Q, K and V in one matrix are such groups.
        """
        parts = [group.chunk(self.count, dim)[self.index] for group in weight.chunk(groups, dim)]
        return torch.cat(parts, dim).detach().clone()

    def columns(self, whole: nn.Linear, groups: int = 1) -> Linear:
        """Return a linear layer with this share of the outputs."""
        bias = None if whole.bias is None else self.of(whole.bias, 0, groups)
        return linear_of(self.of(whole.weight, 0, groups), bias)

    def rows(self, whole: nn.Linear) -> Linear:
        """Return a linear layer with this share of the inputs; its bias is added elsewhere."""
        return linear_of(self.of(whole.weight, 1), None)


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """Make a linear layer with these values: weight (outputs, inputs), bias (outputs,) or None."""
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


class AttentionPart(nn.Module):
    """The heads of one rank: (batch, sequence, hidden) → its addend of the output."""

    def __init__(self, whole: nn.Module, share: Share):
        super().__init__()
        assert isinstance(whole.qkv, nn.Linear) and isinstance(whole.projection, nn.Linear)
        heads = whole.heads
        assert isinstance(heads, int)
        self.heads = heads // share.count
        self.form: Form = whole.form  # type: ignore[assignment]
        self.qkv, self.projection = share.columns(whole.qkv, 3), share.rows(whole.projection)
        self.register_buffer("mask", getattr(whole, "mask", None), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        attended = self_attention(self.qkv(x), self.heads, mask, self.form)
        out: Tensor = self.projection(attended)
        return out


class MlpPart(nn.Module):
    """Columns of fc1 and rows of fc2: (…, hidden) → an addend of the sum over tensor ranks."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, share: Share):
        super().__init__()
        self.fc1, self.fc2 = share.columns(fc1), share.rows(fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Add(nn.Module):
    """The end of a split layer: the sum over ranks plus bias plus residual."""

    def __init__(self, whole: nn.Linear):
        super().__init__()
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Map (…, hidden), twice, to the same shape."""
        return residual + (x + self.bias)


class EmbeddingPart(nn.Module):
    """A share of the vocabulary: (batch, sequence) → (batch, sequence here, hidden).

    Tokens of other shares give 0, so that the sum over ranks is the embedding.
    """

    def __init__(self, whole: nn.Embedding, share: Share):
        super().__init__()
        self.weight = nn.Parameter(share.of(whole.weight))
        self.begin = share.index * len(self.weight)
        self.register_buffer("positions", share.positions, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed this rank's positions of tokens (batch, sequence)."""
        positions: Tensor = self.positions  # type: ignore[assignment]
        row = tokens[:, positions] - self.begin
        elsewhere = (row < 0) | (row >= len(self.weight))
        found = functional.embedding(row.masked_fill_(elsewhere, 0), self.weight)
        return found.masked_fill(elsewhere.unsqueeze(-1), 0.0)


class LogitsPart(nn.Module):
    """The logits of a share of the vocabulary: (…, hidden) → (tokens, share of the vocabulary)."""

    def __init__(self, whole: nn.Linear, share: Share):
        super().__init__()
        self.linear = share.columns(whole)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to (tokens, share of the vocabulary)."""
        logits: Tensor = self.linear(x)
        return logits.flatten(0, -2)


class Maximum(nn.Module):
    """The largest logit of each token in this share: (tokens, share) → (tokens,)."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return the maximum per token, in fp32 at least."""
        return wide(logits.detach().amax(dim=1))


class Exponentials(nn.Module):
    """This share's sum of exponentials and, if it is here, the target's logit: (2, tokens)."""

    reads_target = True

    def __init__(self, share: Share):
        super().__init__()
        self.share, self.answers = share, Answers(share)

    def forward(self, maximum: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """Return (2, tokens) from the maximum over all shares and the logits of this one."""
        shifted = wide(logits) - maximum.unsqueeze(1)
        column = self.answers(target)[0] - self.share.index * logits.shape[1]
        elsewhere = (column < 0) | (column >= logits.shape[1])
        # Not gather: that would keep all of its input for the backward pass.
        row = torch.arange(0, shifted.numel(), shifted.shape[1], device=shifted.device)
        own = shifted.flatten().index_select(0, row + column.masked_fill_(elsewhere, 0))
        return torch.stack([shifted.exp().sum(1), own.masked_fill(elsewhere, 0.0)])


class Answers(nn.Module):
    """The tokens of a target, and which of them only other context ranks can predict.

    From gpt's target it takes the tokens at this rank's positions. From bert's, (2, batch,
    masked), it takes all: how many are here differs from rank to rank, and shapes must not.
    """

    def __init__(self, share: Share):
        super().__init__()
        slots = torch.full((share.sequence,), -1)
        slots[share.positions] = torch.arange(len(share.positions))
        self.ranks = share.ranks
        self.register_buffer("positions", share.positions, persistent=False)
        self.register_buffer("slots", slots, persistent=False)

    def rows(self, target: Tensor) -> Tensor:
        """Return the row of each masked token among the tokens here; −1 for those elsewhere."""
        slots: Tensor = self.slots  # type: ignore[assignment]
        here = len(slots) // self.ranks
        row, column = target[0].flatten() // len(slots), target[0].flatten() % len(slots)
        slot = slots[column]
        return torch.where(slot < 0, -1, row * here + slot)

    def forward(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the tokens, and a mask of those that are elsewhere (None if all are here)."""
        positions: Tensor = self.positions  # type: ignore[assignment]
        if target.dim() == 2:
            return target[:, positions].flatten(), None
        return target[1].flatten(), self.rows(target) < 0 if self.ranks > 1 else None


class CrossEntropy(nn.Module):
    """The mean over tokens, computed from the sums over the vocabulary: a scalar.

    The mean of the context ranks' scalars is the mean over all tokens.
    """

    def __init__(self, share: Share):
        super().__init__()
        self.answers = Answers(share)

    def forward(self, sums: Tensor, target: Tensor) -> Tensor:
        """Return the loss from the sums (2, tokens) over all shares."""
        losses = sums[0].log() - sums[1]
        _, elsewhere = self.answers(target)
        if elsewhere is None:
            return losses.mean()
        return losses.masked_fill(elsewhere, 0.0).sum() * (self.answers.ranks / len(losses))


class Loss(CrossEntropy):
    """The same loss computed from the logits of the whole vocabulary, (tokens, vocab)."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (tokens, vocab)."""
        tokens, elsewhere = self.answers(target)
        if elsewhere is None:
            return cross_entropy(logits, tokens)
        tokens = tokens.masked_fill(elsewhere, IGNORED)
        total = functional.cross_entropy(
            wide(logits), tokens, ignore_index=IGNORED, reduction="sum"
        )
        return total * (self.answers.ranks / len(tokens))


def shard_block(whole: nn.Module, part: str, share: Share) -> nn.Module:
    """Return one rank's `part` of a layer that gpt and bert have in common."""
    attributes = dict(whole.named_children())
    if part == "norm":
        return attributes["norm"]
    if part == "attention":
        return AttentionPart(whole, share)
    if part == "mlp":
        fc1, fc2 = attributes["fc1"], attributes["fc2"]
        assert isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)
        return MlpPart(fc1, fc2, share)
    if part == "add":
        last = attributes.get("projection", attributes.get("fc2"))
        assert isinstance(last, nn.Linear)
        return Add(last)
    if part == "embedding":
        token = attributes["token"]
        assert isinstance(token, nn.Embedding)
        return EmbeddingPart(token, share)
    if part == "logits":
        logits = attributes["logits"]
        assert isinstance(logits, nn.Linear)
        return LogitsPart(logits, share)
    if part == "maximum":
        return Maximum()
    if part == "exponentials":
        return Exponentials(share)
    if part == "cross-entropy":
        return CrossEntropy(share)
    if part == "loss":
        return Loss(share)
    raise ValueError(f"no part {part}")


def tokens_here(experiment: Experiment, share: Share) -> Tensor:
    """Return the positions of the tokens whose norms and residuals this rank computes.

    They are positions in a sequence or, with sequence parallelism, in a share of all tokens
    of a microbatch, row by row.
    """
    if not experiment.parallel.sequence_parallel:
        return share.positions
    return share.of(share.positions.repeat(experiment.microbatch_size))

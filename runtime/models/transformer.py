"""Modules of `simulator.workloads.transformer`: what one rank has of a transformer layer, cut
out of the whole layer of `runtime.models.gpt` or `runtime.models.bert`.
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
"""A token that is none."""


class Share:
    """This rank's share of rows or columns: number `index` of `count` equal ones, along an
    axis of the mesh.

    Attributes:
        places: positions in a sequence of the tokens that this rank has.
        sequence, ranks: length of a whole sequence, and over how many ranks it is split.
    """

    def __init__(self, experiment: Experiment, place: Mapping[str, int], axis: str = "tensor"):
        self.index = place.get(axis, 0)
        self.count: int = getattr(experiment.parallel, axis)
        self.sequence, self.ranks = experiment.workload.sequence, experiment.parallel.context
        rank, everywhere = place.get("context", 0), torch.arange(self.sequence)
        self.places = everywhere.chunk(self.ranks)[rank]
        if zigzag(experiment):
            chunks = everywhere.chunk(2 * self.ranks)
            self.places = torch.cat([chunks[rank], chunks[2 * self.ranks - 1 - rank]])

    def of(self, weight: Tensor, dim: int = 0, groups: int = 1) -> Tensor:
        """Along `dim`, of each of `groups` equal groups (Q, K and V, say)."""
        parts = [group.chunk(self.count, dim)[self.index] for group in weight.chunk(groups, dim)]
        return torch.cat(parts, dim).detach().clone()

    def columns(self, whole: nn.Linear, groups: int = 1) -> Linear:
        """A linear layer with this share of the outputs."""
        bias = None if whole.bias is None else self.of(whole.bias, 0, groups)
        return linear_of(self.of(whole.weight, 0, groups), bias)

    def rows(self, whole: nn.Linear) -> Linear:
        """A linear layer with this share of the inputs; its bias is added elsewhere."""
        return linear_of(self.of(whole.weight, 1), None)


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


class AttentionPart(nn.Module):
    """The heads of one rank: (batch, sequence, hidden) → a part of the sum over ranks."""

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
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        attended = self_attention(self.qkv(x), self.heads, mask, self.form)
        out: Tensor = self.projection(attended)
        return out


class MlpPart(nn.Module):
    """Columns of fc1 and rows of fc2: (…, hidden) → a part of the sum over ranks."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, share: Share):
        super().__init__()
        self.fc1, self.fc2 = share.columns(fc1), share.rows(fc2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Add(nn.Module):
    """Sum, bias and residual."""

    def __init__(self, whole: nn.Linear):
        super().__init__()
        self.bias = nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + (x + self.bias)


class EmbeddingPart(nn.Module):
    """A share of the vocabulary: (batch, sequence) → (batch, sequence here, hidden), 0 for
    tokens of other shares.
    """

    def __init__(self, whole: nn.Embedding, share: Share):
        super().__init__()
        self.weight = nn.Parameter(share.of(whole.weight))
        self.begin = share.index * len(self.weight)
        self.register_buffer("places", share.places, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places: Tensor = self.places  # type: ignore[assignment]
        row = tokens[:, places] - self.begin
        elsewhere = (row < 0) | (row >= len(self.weight))
        found = functional.embedding(row.masked_fill_(elsewhere, 0), self.weight)
        return found.masked_fill(elsewhere.unsqueeze(-1), 0.0)


class LogitsPart(nn.Module):
    """A share of the vocabulary: (…, hidden) → (tokens, share of the vocabulary)."""

    def __init__(self, whole: nn.Linear, share: Share):
        super().__init__()
        self.linear = share.columns(whole)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits.flatten(0, -2)


class Maximum(nn.Module):
    """Of the logits here: (tokens, share) → (tokens,)."""

    def forward(self, logits: Tensor) -> Tensor:
        return wide(logits.detach().amax(dim=1))


class Exponentials(nn.Module):
    """What this rank has of the sum of exponentials and of the target's logit, (2, tokens)."""

    reads_target = True

    def __init__(self, share: Share):
        super().__init__()
        self.share, self.answers = share, Answers(share)

    def forward(self, maximum: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        shifted = wide(logits) - maximum.unsqueeze(1)
        place = self.answers(target)[0] - self.share.index * logits.shape[1]
        elsewhere = (place < 0) | (place >= logits.shape[1])
        # Not gather: that would keep all of its input for the backward pass.
        row = torch.arange(0, shifted.numel(), shifted.shape[1], device=shifted.device)
        own = shifted.flatten().index_select(0, row + place.masked_fill_(elsewhere, 0))
        return torch.stack([shifted.exp().sum(1), own.masked_fill(elsewhere, 0.0)])


class Answers(nn.Module):
    """The tokens of a target, and which of them only other context ranks can tell (None: none).

    Of gpt's target those at the places here. Of bert's, (2, batch, masked), all: how many are
    here differs from rank to rank, and shapes must not.
    """

    def __init__(self, share: Share):
        super().__init__()
        slots = torch.full((share.sequence,), -1)
        slots[share.places] = torch.arange(len(share.places))
        self.ranks = share.ranks
        self.register_buffer("places", share.places, persistent=False)
        self.register_buffer("slots", slots, persistent=False)

    def rows(self, target: Tensor) -> Tensor:
        """Of bert's masked tokens among the tokens here, row by row; -1 for those elsewhere."""
        slots: Tensor = self.slots  # type: ignore[assignment]
        here = len(slots) // self.ranks
        row, column = target[0].flatten() // len(slots), target[0].flatten() % len(slots)
        slot = slots[column]
        return torch.where(slot < 0, -1, row * here + slot)

    def forward(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        places: Tensor = self.places  # type: ignore[assignment]
        if target.dim() == 2:
            return target[:, places].flatten(), None
        return target[1].flatten(), self.rows(target) < 0 if self.ranks > 1 else None


class CrossEntropy(nn.Module):
    """Mean over tokens from the sums over the vocabulary: a scalar, of which the mean over the
    context ranks is that over all tokens.
    """

    def __init__(self, share: Share):
        super().__init__()
        self.answers = Answers(share)

    def forward(self, sums: Tensor, target: Tensor) -> Tensor:
        losses = sums[0].log() - sums[1]
        _, elsewhere = self.answers(target)
        if elsewhere is None:
            return losses.mean()
        return losses.masked_fill(elsewhere, 0.0).sum() * (self.answers.ranks / len(losses))


class Loss(CrossEntropy):
    """The same from the logits of the whole vocabulary, (tokens, vocab)."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        tokens, elsewhere = self.answers(target)
        if elsewhere is None:
            return cross_entropy(logits, tokens)
        tokens = tokens.masked_fill(elsewhere, IGNORED)
        total = functional.cross_entropy(
            wide(logits), tokens, ignore_index=IGNORED, reduction="sum"
        )
        return total * (self.answers.ranks / len(tokens))


def shard_block(whole: nn.Module, part: str, share: Share) -> nn.Module:
    """The parts that gpt and bert have in common."""
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
    """Positions of the tokens whose norms and residuals this rank computes: of a sequence, or
    with sequence parallelism of a share of all tokens of a microbatch, row by row.
    """
    if not experiment.parallel.sequence_parallel:
        return share.places
    return share.of(share.places.repeat(experiment.microbatch_size))

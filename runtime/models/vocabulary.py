"""Parts of the embedding, of the logits and of the loss that one rank has: a share of the words.

`simulator.workloads.vocabulary` describes the same parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models.loss import cross_entropy, wide
from runtime.models.share import Share, linear_of

IGNORED = -100
"""The target of a row that has none here; torch's cross-entropy skips it."""


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


class TiedHead(nn.Module):
    """Logits by the weight of the embedding, and their mean cross-entropy: a scalar."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.logits = linear_of(embedding.weight.detach().clone(), None)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, sequence, hidden) for the next tokens (batch, sequence)."""
        logits: Tensor = self.logits(x)
        return cross_entropy(logits.flatten(0, 1), target.flatten())


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

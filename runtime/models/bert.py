"""The modules of `simulator.workloads.bert`: embedding, attention, MLP, head with its loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models import context
from runtime.models.attention import self_attention
from runtime.models.deferral import Linear
from runtime.models.loss import cross_entropy
from runtime.models.share import Share, tokens_here
from runtime.models.transformer import shard_block
from runtime.models.vocabulary import Answers
from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import Form, form
from simulator.workloads.bert import SEGMENTS

STD = 0.02
EPSILON = 1e-12
"""Both constants are those of the paper's code, google-research/bert."""


def norm(hidden: int) -> nn.LayerNorm:
    """Make a layer norm with BERT's epsilon."""
    return nn.LayerNorm(hidden, eps=EPSILON)


def linear(inputs: int, outputs: int) -> Linear:
    """Make a linear layer with BERT's initial weights."""
    module = Linear(inputs, outputs)
    nn.init.normal_(module.weight, std=STD)
    nn.init.zeros_(module.bias)
    return module


class Embedding(nn.Module):
    """Norm of token + position + segment: (batch, sequence) → (batch, sequence, hidden).

    The second half of a sequence is its second segment.
    """

    def __init__(self, vocab: int, sequence: int, hidden: int):
        super().__init__()
        self.token = nn.Embedding(vocab, hidden)
        self.position = nn.Embedding(sequence, hidden)
        self.segment = nn.Embedding(SEGMENTS, hidden)
        self.norm = norm(hidden)
        positions = torch.arange(sequence)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("segments", positions * SEGMENTS // sequence, persistent=False)
        for table in (self.token, self.position, self.segment):
            nn.init.normal_(table.weight, std=STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens, (batch, sequence)."""
        placed = self.position(self.positions) + self.segment(self.segments)
        embedded: Tensor = self.norm(self.token(tokens) + placed)
        return embedded


class Attention(nn.Module):
    """norm(x + multi-head self-attention of x), in which every token attends to all."""

    def __init__(self, hidden: int, heads: int, form: Form):
        super().__init__()
        self.heads, self.form = heads, form
        self.qkv = linear(hidden, 3 * hidden)
        self.projection = linear(hidden, hidden)
        self.norm = norm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        attended = self_attention(self.qkv(x), self.heads, None, self.form)
        projected: Tensor = self.projection(attended)
        normed: Tensor = self.norm(x + projected)
        return normed


class Mlp(nn.Module):
    """norm(x + fc2(GELU(fc1(x))))."""

    def __init__(self, hidden: int, ffn: int):
        super().__init__()
        self.fc1 = linear(hidden, ffn)
        self.fc2 = linear(ffn, hidden)
        self.norm = norm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to the same shape."""
        normed: Tensor = self.norm(x + self.fc2(functional.gelu(self.fc1(x))))
        return normed


class Head(nn.Module):
    """The head with its loss: the mean cross-entropy of the masked tokens, a scalar.

    The target is (2, batch, masked): positions, counted over the whole microbatch row by
    row, and the tokens there.
    """

    def __init__(self, hidden: int, vocab: int):
        super().__init__()
        self.transform = linear(hidden, hidden)
        self.norm = norm(hidden)
        self.logits = linear(hidden, vocab)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, sequence, hidden) for a target of (2, batch, masked)."""
        positions, tokens = target.flatten(1)
        masked = self.transform(x).flatten(0, 1).index_select(0, positions)
        logits: Tensor = self.logits(self.norm(functional.gelu(masked)))
        return cross_entropy(logits, tokens)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Layer `index` of `simulator.workloads.bert.layers`, freshly initialised."""
    w = experiment.workload
    if index == 0:
        return Embedding(w.vocab, w.sequence, w.hidden)
    if index == 2 * w.layers + 1:
        return Head(w.hidden, w.vocab)
    if index % 2:
        return Attention(w.hidden, w.heads, form(experiment))
    return Mlp(w.hidden, w.ffn)


class Positions(nn.Module):
    """The part of the embedding that adds position and segment of this rank's tokens, and norms."""

    def __init__(self, whole: Embedding, positions: Tensor, sequence: int):
        super().__init__()
        self.position, self.segment, self.norm = whole.position, whole.segment, whole.norm
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("segments", positions * SEGMENTS // sequence, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map token embeddings (batch, tokens here, hidden) to the same shape."""
        placed = self.position(self.positions) + self.segment(self.segments)
        normed: Tensor = self.norm(x + placed)
        return normed


class Transform(nn.Module):
    """The head up to the logits: (batch, sequence, hidden) → (masked tokens, hidden).

    The rows of masked tokens that are on another context rank are filled with the first token
    here; `CrossEntropy` does not count them.
    """

    reads_target = True

    def __init__(self, whole: Head, share: Share):
        super().__init__()
        self.transform, self.norm = whole.transform, whole.norm
        self.answers = Answers(share)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Pick the masked tokens and transform them: (masked tokens, hidden)."""
        rows = self.answers.rows(target).clamp_(min=0)
        masked = self.transform(x).flatten(0, 1).index_select(0, rows)
        out: Tensor = self.norm(functional.gelu(masked))
        return out


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module:
    """Return what one rank has of `whole`; see `simulator.workloads.bert.split_layers`."""
    share = Share(experiment, coordinate)
    if name == "positions":
        assert isinstance(whole, Embedding)
        return Positions(whole, tokens_here(experiment, share), experiment.workload.sequence)
    if name == "transform":
        assert isinstance(whole, Head)
        return Transform(whole, share)
    return context.shard_attention(whole, name, experiment, coordinate) or shard_block(
        whole, name, share
    )

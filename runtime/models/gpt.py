"""The modules of `simulator.workloads.gpt`: embedding, attention, MLP, head with its loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models import context, llama
from runtime.models.attention import causal_mask, self_attention
from runtime.models.deferral import Linear
from runtime.models.share import Share, tokens_here
from runtime.models.transformer import shard_block
from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import Form, form


class Embedding(nn.Module):
    """Token plus learned position: bytes (batch, sequence) → (batch, sequence, hidden)."""

    def __init__(self, vocab: int, sequence: int, hidden: int):
        super().__init__()
        self.token = nn.Embedding(vocab, hidden)
        self.position = nn.Embedding(sequence, hidden)
        self.register_buffer("positions", torch.arange(sequence), persistent=False)
        for table in (self.token, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens, (batch, sequence)."""
        embedded: Tensor = self.token(tokens) + self.position(self.positions)
        return embedded


class LearnedPositions(nn.Module):
    """The table of learned positions alone, where tokens are embedded by a layer of their own."""

    def __init__(self, sequence: int, hidden: int):
        super().__init__()
        self.position = nn.Embedding(sequence, hidden)
        nn.init.normal_(self.position.weight, std=0.02)


class Attention(nn.Module):
    """x + causal multi-head self-attention of norm(x)."""

    def __init__(self, hidden: int, heads: int, sequence: int, form: Form):
        super().__init__()
        self.heads, self.form = heads, form
        self.norm = nn.LayerNorm(hidden)
        self.qkv = Linear(hidden, 3 * hidden)
        self.projection = Linear(hidden, hidden)
        self.register_buffer("mask", causal_mask(sequence), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        mask: Tensor = self.mask  # type: ignore[assignment]
        attended = self_attention(self.qkv(self.norm(x)), self.heads, mask, self.form)
        projected: Tensor = self.projection(attended)
        return x + projected


class Mlp(nn.Module):
    """x + fc2(GELU(fc1(norm(x))))."""

    def __init__(self, hidden: int, ffn: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.fc1 = Linear(hidden, ffn)
        self.fc2 = Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return x + out


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.gpt.layers`, freshly initialised."""
    w = experiment.workload
    if w.tie_embeddings:
        if index == 0:
            return llama.Embedding(w.vocab, w.hidden)
        if index == 1:
            return LearnedPositions(w.sequence, w.hidden)
        if index == 2 * w.layers + 2:
            return nn.LayerNorm(w.hidden)
        index -= 1
    if index == 0:
        return Embedding(w.vocab, w.sequence, w.hidden)
    if index == 2 * w.layers + 1:
        return llama.Head(nn.LayerNorm(w.hidden), w.hidden, w.vocab)
    if index % 2:
        return Attention(w.hidden, w.heads, w.sequence, form(experiment))
    return Mlp(w.hidden, w.ffn)


class Positions(nn.Module):
    """The part of the embedding that adds the learned positions of this rank's tokens."""

    def __init__(self, whole: Embedding | LearnedPositions, positions: Tensor):
        super().__init__()
        self.position = whole.position
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map token embeddings (batch, tokens here, hidden) to the same shape."""
        out: Tensor = x + self.position(self.positions)
        return out


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module:
    """Return what one rank has of `whole`; see `simulator.workloads.gpt.split_layers`."""
    share = Share(experiment, coordinate)
    if name == "positions":
        assert isinstance(whole, Embedding | LearnedPositions)
        return Positions(whole, tokens_here(experiment, share))
    return context.shard_attention(whole, name, experiment, coordinate) or shard_block(
        whole, name, share
    )

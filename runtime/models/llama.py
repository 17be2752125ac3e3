"""The modules of `simulator.workloads.llama`: embedding, attention, MLP, head with its loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runtime.models import context
from runtime.models.attention import causal_mask, self_attention
from runtime.models.deferral import Linear
from runtime.models.gated import Activation, gated
from runtime.models.loss import cross_entropy
from runtime.models.rms_norm import RmsNorm
from runtime.models.rotary import Rotary
from runtime.models.share import Share
from runtime.models.transformer import shard_block
from simulator.experiment.experiment import Experiment
from simulator.workloads.anatomy import Anatomy
from simulator.workloads.attention import Form, form


class Embedding(nn.Module):
    """Token embedding: bytes (batch, sequence) → (batch, sequence, hidden)."""

    def __init__(self, vocab: int, hidden: int):
        super().__init__()
        self.token = nn.Embedding(vocab, hidden)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens, (batch, sequence)."""
        embedded: Tensor = self.token(tokens)
        return embedded


class Attention(nn.Module):
    """x + causal self-attention of norm(x), with grouped queries and rotary positions.

    Args:
        a: the sizes of the block.
        sequence: tokens.
        form: how the core is computed.
        rotary: turns queries and keys.
        window: tokens that a token attends to; None: all before it.
    """

    def __init__(
        self, a: Anatomy, sequence: int, form: Form, rotary: Rotary, window: int | None = None
    ):
        super().__init__()
        self.heads, self.kv_heads, self.form = a.heads, a.kv_heads, form
        self.norm = RmsNorm(a.hidden)
        self.qkv = Linear(a.hidden, a.queries + 2 * a.keys, bias=a.qkv_bias)
        self.projection = Linear(a.queries, a.hidden, bias=a.bias)
        self.rotary, self.window = rotary, window is not None
        self.query_norm = RmsNorm(a.head) if a.qk_norm else None
        self.key_norm = RmsNorm(a.head) if a.qk_norm else None
        self.register_buffer("mask", causal_mask(sequence, window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        mask: Tensor = self.mask  # type: ignore[assignment]
        qkv = self.qkv(self.norm(x))
        norms = None
        if self.query_norm is not None and self.key_norm is not None:
            norms = self.query_norm, self.key_norm
        attended = self_attention(
            qkv,
            self.heads,
            mask,
            self.form,
            self.kv_heads,
            self.rotary.turn,
            norms,
            self.window,
        )
        projected: Tensor = self.projection(attended)
        return x + projected


class GatedMlp(nn.Module):
    """x + fc2(f(gate) · up), where gate and up are the two halves of fc1(norm(x))."""

    def __init__(self, a: Anatomy, activation: Activation):
        super().__init__()
        self.activation: Activation = activation
        self.norm = RmsNorm(a.hidden)
        self.fc1 = Linear(a.hidden, 2 * a.ffn, bias=a.bias)
        self.fc2 = Linear(a.ffn, a.hidden, bias=a.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to the same shape."""
        out: Tensor = self.fc2(gated(self.fc1(self.norm(x)), self.activation))
        return x + out


class Head(nn.Module):
    """Final norm, logits and their mean cross-entropy: a scalar."""

    def __init__(self, norm: nn.Module, hidden: int, vocab: int):
        super().__init__()
        self.norm = norm
        self.logits = Linear(hidden, vocab, bias=False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, sequence, hidden) for the next tokens (batch, sequence)."""
        logits: Tensor = self.logits(self.norm(x))
        return cross_entropy(logits.flatten(0, 1), target.flatten())


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Layer `index` of `simulator.workloads.llama.layers`, freshly initialised."""
    w = experiment.workload
    if index == 0:
        return Embedding(w.vocab, w.hidden)
    if index == 2 * w.layers + 1:
        norm = RmsNorm(w.hidden)
        return norm if w.tie_embeddings else Head(norm, w.hidden, w.vocab)
    anatomy = Anatomy.of(w)
    if index % 2:
        rotary = Rotary(w, torch.arange(w.sequence))
        window = anatomy.window_of((index - 1) // 2)
        return Attention(anatomy, w.sequence, form(experiment), rotary, window)
    return GatedMlp(anatomy, w.activation)


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module:
    """Return what one rank has of `whole`; see `simulator.workloads.llama.split_layers`."""
    share = Share(experiment, coordinate)
    return context.shard_attention(whole, name, experiment, coordinate) or shard_block(
        whole, name, share
    )

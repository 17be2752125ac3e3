"""Parts of transformer layers that one rank has, cut out of the layers of gpt or bert.

`simulator.workloads.transformer` describes the same parts.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from runtime.models.attention import self_attention
from runtime.models.gated import Activation, gated
from runtime.models.rotary import Rotary
from runtime.models.share import Share, linear_of
from runtime.models.vocabulary import (
    CrossEntropy,
    EmbeddingPart,
    Exponentials,
    LogitsPart,
    Loss,
    Maximum,
    TiedHead,
)
from simulator.workloads.attention import Form


class AttentionPart(nn.Module):
    """The heads of one rank: (batch, sequence, hidden) → its addend of the output."""

    def __init__(self, whole: nn.Module, share: Share):
        super().__init__()
        assert isinstance(whole.qkv, nn.Linear) and isinstance(whole.projection, nn.Linear)
        heads, kv_heads = whole.heads, getattr(whole, "kv_heads", whole.heads)
        assert isinstance(heads, int) and isinstance(kv_heads, int)
        self.heads, self.kv_heads = heads // share.count, kv_heads // share.count
        self.form: Form = whole.form  # type: ignore[assignment]
        head = whole.projection.in_features // heads
        groups = (heads * head, kv_heads * head, kv_heads * head)
        self.qkv, self.projection = share.columns(whole.qkv, groups), share.rows(whole.projection)
        self.window: bool = getattr(whole, "window", False)
        self.rotary: Rotary | None = getattr(whole, "rotary", None)
        self.register_buffer("mask", getattr(whole, "mask", None), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        mask: Tensor | None = self.mask  # type: ignore[assignment]
        turn = None if self.rotary is None else self.rotary.turn
        attended = self_attention(
            *(self.qkv(x), self.heads, mask, self.form, self.kv_heads, turn), window=self.window
        )
        out: Tensor = self.projection(attended)
        return out


class MlpPart(nn.Module):
    """Columns of fc1 and rows of fc2: (…, hidden) → an addend of the sum over tensor ranks."""

    def __init__(
        self, fc1: nn.Linear, fc2: nn.Linear, share: Share, activation: Activation = "silu"
    ):
        super().__init__()
        is_gated = fc1.out_features > fc2.in_features
        self.activation = partial(gated, activation=activation) if is_gated else functional.gelu
        groups = (fc2.in_features, fc2.in_features) if is_gated else ()
        self.fc1, self.fc2 = share.columns(fc1, groups), share.rows(fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, hidden) to the same shape."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Add(nn.Module):
    """The end of a split layer: the sum over ranks plus bias, if there is one, plus residual."""

    def __init__(self, whole: nn.Linear):
        super().__init__()
        self.bias = None if whole.bias is None else nn.Parameter(whole.bias.detach().clone())

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Map (…, hidden), twice, to the same shape."""
        return residual + (x if self.bias is None else x + self.bias)


def shard_block(whole: nn.Module, part: str, share: Share) -> nn.Module:
    """Return one rank's `part` of a layer that gpt and bert have in common."""
    attributes = dict(whole.named_children())
    if part == "norm":
        return attributes.get("norm", whole)
    if part == "attention":
        return AttentionPart(whole, share)
    if part == "mlp":
        fc1, fc2 = attributes["fc1"], attributes["fc2"]
        assert isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)
        return MlpPart(fc1, fc2, share, getattr(whole, "activation", "silu"))
    if part == "add":
        last = attributes.get("projection", attributes.get("fc2"))
        assert isinstance(last, nn.Linear)
        return Add(last)
    if part == "embedding":
        token = attributes["token"]
        assert isinstance(token, nn.Embedding)
        return EmbeddingPart(token, share)
    if part == "tied-head":
        token = attributes["token"]
        assert isinstance(token, nn.Embedding)
        return TiedHead(token)
    if part == "logits":
        logits = attributes.get("logits")
        if logits is None:  # tied to the embedding
            token = attributes["token"]
            assert isinstance(token, nn.Embedding)
            logits = linear_of(token.weight, None)
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

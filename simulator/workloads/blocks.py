"""Halves of transformer blocks and the loss, which gpt and bert share where layers are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import Core, form
from simulator.workloads.layer import Layer, linear


@dataclass(frozen=True)
class TransformerBlocks:
    """Halves of transformer blocks, with biases, for one microbatch of an experiment.

    Attributes:
        name: of the model, in front of the kinds of its layers; empty for gpt.
        pre_norm: a block begins with its norms (GPT-2), instead of ending with them (BERT). The
            output of a norm at the beginning is kept as the input of the product behind it; a
            norm at the end hands it on, so that the boundary keeps it.
    """

    experiment: Experiment
    name: str
    pre_norm: bool

    @property
    def tokens(self) -> int:
        """Tokens of a microbatch."""
        return self.experiment.microbatch_size * self.experiment.workload.sequence

    @property
    def shape(self) -> str:
        """Sizes that all layers have in the name of their kind."""
        w = self.experiment.workload
        return f"b{self.experiment.microbatch_size} s{w.sequence} h{w.hidden}"

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Shape of what a block hands on: (batch, sequence, hidden)."""
        w = self.experiment.workload
        return (self.experiment.microbatch_size, w.sequence, w.hidden)

    @property
    def hidden_bytes(self) -> int:
        """Bytes of a tensor of shape (batch, sequence, hidden)."""
        return self.tokens * self.experiment.workload.hidden * self.experiment.workload.dtype_bytes

    @property
    def norm_statistics(self) -> int:
        """Bytes of the mean and the deviation that a norm keeps of every token."""
        return 2 * self.tokens * self.experiment.workload.wide_bytes

    def attention(self, causal: bool) -> Layer:
        """Return norm, attention and residual: Q, K and V in one product, and a projection."""
        w, hidden = self.experiment.workload, self.hidden_bytes
        h, heads = w.hidden, w.heads
        count = self.experiment.microbatch_size * heads
        core = Core(
            form(self.experiment), count, w.sequence, h // heads, w.dtype_bytes, causal=causal
        )
        half = self._half(
            f"attention {self.shape} a{heads}",
            parameters=3 * h * h + 3 * h + h * h + h,
            # Inputs of the projection; gradients of Q, K, V and output.
            deferred_bytes=5 * hidden,
        )
        return core.into(
            replace(
                half,
                matmuls=(linear(self.tokens, h, 3 * h), linear(self.tokens, h, h)),
                moved_bytes=5 * hidden,  # norm, residual
                kernels=2,
                saved_bytes=5 * hidden + self.norm_statistics,
            )
        )

    def mlp(self) -> Layer:
        """Return norm, two products with GELU between them, and residual."""
        w, tokens, hidden = self.experiment.workload, self.tokens, self.hidden_bytes
        h, ffn = w.hidden, w.ffn
        inner = 2 * tokens * ffn * w.dtype_bytes  # both sides of GELU
        half = self._half(
            f"mlp {self.shape} f{ffn}",
            parameters=h * ffn + ffn + ffn * h + h,
            deferred_bytes=hidden + inner,
        )
        return replace(
            half,
            matmuls=(linear(tokens, h, ffn), linear(tokens, ffn, h)),
            moved_bytes=5 * hidden + inner,  # norm, residual; GELU
            kernels=3,
            saved_bytes=hidden + inner + self.norm_statistics,
            starts_block=False,
        )

    def _half(self, kind: str, parameters: int, deferred_bytes: int) -> Layer:
        """Return half a block with the parameters of its norm."""
        return Layer(
            kind=self.name + kind,
            parameters=parameters + 2 * self.experiment.workload.hidden,
            # The input of the first product is the norm's output, or the layer's own input.
            deferred_bytes=deferred_bytes + (self.hidden_bytes if self.pre_norm else 0),
            defers_input=not self.pre_norm,
            output_shape=self.output_shape,
            output_bytes=self.hidden_bytes,
        )

    def head(self, before: Layer, rows: int, bias: bool) -> Layer:
        """Return `before` with the projection on the vocabulary and the cross-entropy behind it.

        Args:
            rows: tokens whose logits are computed.
            bias: the projection has one.
        """
        w = self.experiment.workload
        logits, wide = rows * w.vocab, w.wide_bytes
        return replace(
            before,
            parameters=before.parameters + w.hidden * w.vocab + bias * w.vocab,
            matmuls=(*before.matmuls, linear(rows, w.hidden, w.vocab)),
            moved_bytes=before.moved_bytes + 3 * logits * wide,  # log-softmax
            kernels=before.kernels + 2,
            # Output of log-softmax, targets, the loss's total weight.
            saved_bytes=before.saved_bytes + logits * wide + 8 * rows + wide,
            deferred_bytes=before.deferred_bytes + logits * w.dtype_bytes,
            starts_block=False,
        )


def chain(embedding: Layer, blocks: Sequence[Layer], head: Layer) -> list[Layer]:
    """Return the layers in order; a stage cannot begin between embedding and first block."""
    first, *rest = blocks
    return [embedding, replace(first, starts_block=False), *rest, head]

"""Halves of transformer blocks and the loss, which all families share where layers are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.anatomy import Anatomy
from simulator.workloads.attention import Core, form
from simulator.workloads.head_norm import HeadNorm
from simulator.workloads.layer import Layer, linear, linear_shapes


@dataclass(frozen=True)
class TransformerBlocks:
    """Halves of transformer blocks for one microbatch of an experiment.

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
    def anatomy(self) -> Anatomy:
        """The anatomy of a block."""
        return Anatomy.of(self.experiment.workload)

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
        """Bytes that a norm keeps of every token, besides its input."""
        return self.anatomy.statistics * self.tokens * self.experiment.workload.wide_bytes

    def attention(self, causal: bool, block: int = 0) -> Layer:
        """Return norm, attention and residual: Q, K and V in one product, and a projection."""
        w, hidden, a = self.experiment.workload, self.hidden_bytes, self.anatomy
        h, qkv, width = w.hidden, a.queries + 2 * a.keys, w.dtype_bytes
        core = Core(
            form(self.experiment),
            self.experiment.microbatch_size * a.heads,
            w.sequence,
            a.head,
            width,
            causal,
            a.group,
            a.rotary,
            a.window_of(block),
        )
        normed = HeadNorm(a, self.tokens, a.queries, a.keys, width, w.wide_bytes)
        half = self._half(
            f"attention {self.shape} {a.shape}",
            shapes=(
                *linear_shapes(h, qkv, a.qkv_bias),
                *linear_shapes(a.queries, h, a.bias),
                *normed.shapes,
            ),
            # Inputs of the projection; gradients of Q, K, V and output.
            deferred_bytes=self.tokens * (a.queries + qkv) * width + hidden,
        )
        return core.into(
            replace(
                half,
                matmuls=(linear(self.tokens, h, qkv), linear(self.tokens, a.queries, h)),
                moved_bytes=5 * hidden + normed.moved_bytes,  # norm, residual
                kernels=2 + normed.kernels,
                saved_bytes=hidden
                + self.tokens * (a.queries + qkv) * width
                + self.norm_statistics
                + normed.saved_bytes(core.form),
            )
        )

    def mlp(self) -> Layer:
        """Return norm, two products with the activation function between them, and residual."""
        w, a = self.experiment.workload, self.anatomy
        tokens, hidden = self.tokens, self.hidden_bytes
        h, ffn, (moves, kernels) = w.hidden, w.ffn, a.activation_work
        inner = tokens * (a.inner + ffn) * w.dtype_bytes  # both sides of the activation function
        biases = " biases" if a.gated and a.bias else ""
        half = self._half(
            f"mlp {self.shape} f{ffn}{biases}",
            shapes=(*linear_shapes(h, a.inner, a.bias), *linear_shapes(ffn, h, a.bias)),
            deferred_bytes=hidden + inner,
        )
        return replace(
            half,
            matmuls=(linear(tokens, h, a.inner), linear(tokens, ffn, h)),
            # Norm, residual; activation function.
            moved_bytes=5 * hidden + moves * tokens * ffn * w.dtype_bytes,
            kernels=2 + kernels,
            saved_bytes=hidden + inner + self.norm_statistics,
            starts_block=False,
        )

    def _half(self, kind: str, shapes: tuple[tuple[int, ...], ...], deferred_bytes: int) -> Layer:
        """Return half a block with the parameters of its norm."""
        norm = self.anatomy.norm_shapes
        return Layer(
            kind=self.name + kind,
            shapes=(*norm, *shapes) if self.pre_norm else (*shapes, *norm),
            # The input of the first product is the norm's output, or the layer's own input.
            deferred_bytes=deferred_bytes + (self.hidden_bytes if self.pre_norm else 0),
            defers_input=not self.pre_norm,
            output_shape=self.output_shape,
            output_bytes=self.hidden_bytes,
        )

    @property
    def is_alone(self) -> bool:
        """Tell whether one stage has all layers, and tied ones share their parameters there."""
        parallel = self.experiment.parallel
        return parallel.pipeline * parallel.virtual_stages == 1

    def tokens_embedding(self, tied: bool) -> Layer:
        """Return the embedding of tokens alone."""
        w = self.experiment.workload
        return Layer(
            kind=f"tokens {self.shape} v{w.vocab}",
            shapes=((w.vocab, w.hidden),),
            moved_bytes=2 * self.hidden_bytes,
            kernels=1,
            saved_bytes=8 * self.tokens,
            output_shape=self.output_shape,
            output_bytes=self.hidden_bytes,
            tied=tied,
        )

    def tied_head(self, norm: int, embedding: int) -> list[Layer]:
        """Return the last norm, then logits by the weight of the embedding, and their loss.

        Args:
            norm: index of the norm's whole layer.
            embedding: index of the whole layer that has the weight.
        """
        w = self.experiment.workload
        last = Layer(
            kind=f"{self.name}last-norm {self.shape}",
            shapes=self.anatomy.norm_shapes,
            moved_bytes=2 * self.hidden_bytes,
            kernels=1,
            saved_bytes=self.norm_statistics,
            output_shape=self.output_shape,
            output_bytes=self.hidden_bytes,
            starts_block=False,
            whole=(norm, ""),
        )
        bare = Layer(kind=f"tied-head {self.shape} v{w.vocab}", defers_input=True)
        head = self.head(bare, self.tokens, bias=False)
        copied = () if self.is_alone else head.shapes
        return [last, replace(head, shapes=copied, tied=True, whole=(embedding, "tied-head"))]

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
            shapes=(*before.shapes, *linear_shapes(w.hidden, w.vocab, bias)),
            matmuls=(*before.matmuls, linear(rows, w.hidden, w.vocab)),
            moved_bytes=before.moved_bytes + 3 * logits * wide,  # log-softmax
            kernels=before.kernels + 2,
            # Output of log-softmax, targets, the loss's total weight.
            saved_bytes=before.saved_bytes + logits * wide + 8 * rows + wide,
            deferred_bytes=before.deferred_bytes + logits * w.dtype_bytes,
            starts_block=False,
        )


def chain(embedding: Layer, blocks: Sequence[Layer], *head: Layer) -> list[Layer]:
    """Return the layers in order; a stage cannot begin between embedding and first block."""
    first, *rest = blocks
    return [embedding, replace(first, starts_block=False), *rest, *head]

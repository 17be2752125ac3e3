"""BERT (Devlin et al. 2019): bidirectional encoder trained to fill in masked tokens.

Post-norm blocks, attention over the whole sequence, GELU, biases
everywhere. Token, position and segment embedding are summed and normed; the second half
of a sequence is its second segment. The head normalises GELU of a hidden × hidden product
of the masked positions and projects it on the vocabulary. Left out: dropout (so that a run
repeats), the pooler with the next-sentence task, padding.

The projection on the vocabulary has a weight of its own, where BERT reuses the token
embedding (one parameter cannot be in two stages). Parameters: base 132,955,194, of which
the encoder with embeddings has 108,891,648 (published: 110M, which counts 590,592 of the
pooler); large 366,428,986, of which 334,092,288 (published: 340M, 1,049,600 pooler).

`runtime.models.bert` is the module that computes it.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.blocks import TransformerBlocks, chain
from simulator.workloads.context import attention as split_attention
from simulator.workloads.gpt import positions
from simulator.workloads.layer import REPLICATED, Layer, linear, linear_shapes, norm_shapes
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer
from simulator.workloads.vocabulary import cross_entropy, embedding, logits

MASKED_SHARE = 0.15
SEGMENTS = 2


def masked_positions(sequence: int) -> int:
    """Return the number of masked tokens of a sequence.

    It is always the same, so that means over microbatches average to the mean over the batch.
    """
    return max(1, round(MASKED_SHARE * sequence))


def layers(experiment: Experiment) -> list[Layer]:
    """Return embedding, then attention and MLP of each block, then the head with its loss.

    A norm ends every block, so that the tensor handed on is the input of the next
    product: autograd keeps it once.
    """
    w, blocks = experiment.workload, TransformerBlocks(experiment, "bert-", pre_norm=False)
    h, width, hidden_bytes = w.hidden, w.dtype_bytes, blocks.hidden_bytes
    masked = experiment.microbatch_size * masked_positions(w.sequence)
    first = Layer(
        kind=f"bert-embedding {blocks.shape} v{w.vocab}",
        shapes=((w.vocab, h), (w.sequence, h), (SEGMENTS, h), *norm_shapes(h)),
        moved_bytes=6 * hidden_bytes,  # rows looked up, positions and segments added, norm
        kernels=6,
        saved_bytes=8 * blocks.tokens + hidden_bytes + blocks.norm_statistics,
        output_shape=blocks.output_shape,
        output_bytes=hidden_bytes,
    )
    # The first product is taken at all positions (as Hugging Face's BertForMaskedLM, where
    # the paper's code takes the masked ones before it), what follows at the masked ones.
    transform = Layer(
        kind=f"bert-head {blocks.shape} v{w.vocab}",
        shapes=(*linear_shapes(h, h), *norm_shapes(h)),
        matmuls=(linear(blocks.tokens, h, h),),
        moved_bytes=6 * masked * h * width,  # masked ones taken, GELU, norm
        kernels=3,
        # Inputs of GELU, norm and projection; the norm's statistics; masked positions.
        saved_bytes=3 * masked * h * width + 2 * masked * w.wide_bytes + 8 * masked,
        deferred_bytes=hidden_bytes + masked * h * width,
        defers_input=True,
    )
    halves = [blocks.attention(causal=False), blocks.mlp()] * w.layers
    return chain(first, halves, blocks.head(transform, masked, bias=True))


def _half(p: SplitTransformer, whole: int, core: list[Layer]) -> list[Layer]:
    """Return `core`, residual and norm."""
    result = [*p.enter(), *core, *p.leave()]
    return [*result, p.add(whole, back=len(result)), p.norm(whole)]


def split_layers(experiment: Experiment) -> list[Layer]:
    """Return the same, cut where ranks must talk (see `simulator.workloads.transformer`)."""
    p, blocks = SplitTransformer.of(experiment), experiment.workload.layers
    result = [embedding(p), *p.leave(), _positions_and_segments(p)]
    for block in range(blocks):
        whole = 2 * block + 1
        first, *rest = _half(p, whole, split_attention(p, whole, causal=False))
        result += [replace(first, starts_block=block > 0), *rest]
        result += _half(p, whole + 1, [p.mlp(whole + 1)])
    whole, masked = 2 * blocks + 1, p.batch * masked_positions(p.context * p.sequence)
    result += [*p.enter(), _transform(p, whole, masked), logits(p, whole, masked, bias=True)]
    *before, loss = cross_entropy(p, whole, masked)
    if p.context > 1 and p.tensor > 1:
        loss = replace(loss, saved_bytes=masked)  # which tokens are other ranks'
    return [*result, *before, loss]


def _positions_and_segments(p: SplitTransformer) -> Layer:
    """Return what adds position and segment embedding of the tokens here, and norms."""
    return replace(
        positions(p),
        kind=f"bert-positions n{p.here} s{p.sequence} c{p.context} h{p.hidden}",
        shapes=(
            (p.context * p.sequence, p.hidden),
            (SEGMENTS, p.hidden),
            *norm_shapes(p.hidden),
        ),
        moved_bytes=6 * p.here_bytes,
        kernels=5,
        saved_bytes=p.here_bytes + p.norm_statistics,
    )


def _transform(p: SplitTransformer, whole: int, masked: int) -> Layer:
    """Return the part of the head before the logits, which every rank computes whole.

    A rank has only its share of the logits, so that the gradients that come back are parts of
    a sum over the ranks. How many masked tokens are on a context rank is not known beforehand,
    so each has room, and does the work, for all.
    """
    h = p.hidden
    return Layer(
        kind=f"bert-transform {p.shape} n{masked}",
        shapes=(*linear_shapes(h, h), *norm_shapes(h)),
        matmuls=(linear(p.tokens, h, h),),
        moved_bytes=6 * masked * h * p.width,  # masked ones taken, GELU, norm
        kernels=3,
        saved_bytes=2 * masked * h * p.width + 2 * masked * p.wide + 8 * masked,
        deferred_bytes=p.all_bytes,
        defers_input=True,
        output_shape=(masked, h),
        output_bytes=masked * h * p.width,
        starts_block=False,
        sums_over=(*REPLICATED, "tensor"),
        copied_over=EVERYWHERE,
        whole=(whole, "transform"),
    )

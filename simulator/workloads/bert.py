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
from simulator.workloads.attention import Core, form
from simulator.workloads.context import attention as split_attention
from simulator.workloads.layer import REPLICATED, Layer, linear
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer

MASKED_SHARE = 0.15
SEGMENTS = 2


def masked_positions(sequence: int) -> int:
    """Of one sequence. Always the same number: means over microbatches then average to the
    mean over the batch.
    """
    return max(1, round(MASKED_SHARE * sequence))


def layers(experiment: Experiment) -> list[Layer]:
    """Embedding, then attention and MLP of each block, then the head with its loss.

    A norm ends every block, so that the tensor handed on is the input of the next
    product: autograd keeps it once.
    """
    w = experiment.workload
    batch, width, wide = experiment.microbatch_size, w.dtype_bytes, w.wide_bytes
    tokens = batch * w.sequence
    masked = batch * masked_positions(w.sequence)
    h, ffn, heads = w.hidden, w.ffn, w.heads
    shape = f"b{batch} s{w.sequence} h{h}"
    out = (batch, w.sequence, h)
    hidden_bytes = tokens * h * width
    norm_statistics = 2 * tokens * max(width, 4)

    tables = (w.vocab + w.sequence + SEGMENTS) * h
    embedding = Layer(
        kind=f"bert-embedding {shape} v{w.vocab}",
        parameters=tables + 2 * h,
        moved_bytes=6 * hidden_bytes,  # rows looked up, positions and segments added, norm
        kernels=6,
        saved_bytes=8 * tokens + hidden_bytes + norm_statistics,
        output_shape=out,
        output_bytes=hidden_bytes,
    )
    core = Core(form(experiment), batch * heads, w.sequence, h // heads, width, causal=False)
    attention = core.into(
        Layer(
            kind=f"bert-attention {shape} a{heads}",
            parameters=3 * h * h + 3 * h + h * h + h + 2 * h,
            products=(linear(tokens, h, 3 * h), linear(tokens, h, h)),
            moved_bytes=5 * hidden_bytes,  # residual, norm
            kernels=2,
            saved_bytes=5 * hidden_bytes + norm_statistics,
            # Projection's input; gradients of Q, K, V and output.
            deferred_bytes=5 * hidden_bytes,
            defers_input=True,
            output_shape=out,
            output_bytes=hidden_bytes,
        )
    )
    mlp = Layer(
        kind=f"bert-mlp {shape} f{ffn}",
        parameters=h * ffn + ffn + ffn * h + h + 2 * h,
        products=(linear(tokens, h, ffn), linear(tokens, ffn, h)),
        moved_bytes=5 * hidden_bytes + 2 * tokens * ffn * width,  # residual, norm; GELU
        kernels=3,
        saved_bytes=hidden_bytes + 2 * tokens * ffn * width + norm_statistics,
        deferred_bytes=hidden_bytes + 2 * tokens * ffn * width,
        defers_input=True,
        output_shape=out,
        output_bytes=hidden_bytes,
        starts_block=False,
    )
    # The first product is taken at all positions (as Hugging Face's BertForMaskedLM, where
    # the paper's code takes the masked ones before it), what follows at the masked ones.
    head = Layer(
        kind=f"bert-head {shape} v{w.vocab}",
        parameters=h * h + h + 2 * h + h * w.vocab + w.vocab,
        products=(linear(tokens, h, h), linear(masked, h, w.vocab)),
        # Masked ones taken, GELU, norm; log-softmax.
        moved_bytes=6 * masked * h * width + 3 * masked * w.vocab * wide,
        kernels=5,
        saved_bytes=3 * masked * h * width  # inputs of GELU, norm and projection
        + 2 * masked * wide
        + masked * w.vocab * wide  # log-softmax output
        + 2 * 8 * masked  # positions and tokens there
        + wide,  # the loss's total weight
        deferred_bytes=hidden_bytes + masked * (h + w.vocab) * width,
        defers_input=True,
        starts_block=False,
    )
    # The first block stays with the embedding: a stage cannot begin between them.
    first, *rest = [attention, mlp] * w.layers
    return [embedding, replace(first, starts_block=False), *rest, head]


def _half(p: SplitTransformer, whole: int, core: list[Layer]) -> list[Layer]:
    """`core`, residual and norm."""
    result = [*p.enter(), *core, *p.leave()]
    return [*result, p.add(whole, back=len(result)), p.norm(whole)]


def split_layers(experiment: Experiment) -> list[Layer]:
    """The same, cut where ranks must talk (see `simulator.workloads.transformer`)."""
    p, blocks = SplitTransformer.of(experiment), experiment.workload.layers
    result = [p.embedding(), *p.leave(), _places(p)]
    for block in range(blocks):
        whole = 2 * block + 1
        first, *rest = _half(p, whole, split_attention(p, whole, causal=False))
        result += [replace(first, starts_block=block > 0), *rest]
        result += _half(p, whole + 1, [p.mlp(whole + 1)])
    whole, masked = 2 * blocks + 1, p.batch * masked_positions(p.context * p.sequence)
    result += [*p.enter(), _transform(p, whole, masked), p.logits(whole, masked, bias=True)]
    *before, loss = p.cross_entropy(whole, masked)
    if p.context > 1 and p.tensor > 1:
        loss = replace(loss, saved_bytes=masked)  # which tokens are other ranks'
    return [*result, *before, loss]


def _places(p: SplitTransformer) -> Layer:
    """Adds position and segment embedding of the tokens here, and norms."""
    return Layer(
        kind=f"bert-places n{p.here} s{p.sequence} c{p.context} h{p.hidden}",
        parameters=(p.context * p.sequence + SEGMENTS) * p.hidden + 2 * p.hidden,
        moved_bytes=6 * p.here_bytes,
        kernels=5,
        saved_bytes=p.here_bytes + p.norm_statistics,
        output_shape=p.here_shape,
        output_bytes=p.here_bytes,
        starts_block=False,
        keeps=(False,),
        sums_over=p.copied_sums,
        copied_over=EVERYWHERE,
        whole=(0, "places"),
    )


def _transform(p: SplitTransformer, whole: int, masked: int) -> Layer:
    """Of the head: every rank computes all of it, then its share of the logits, so that the
    gradients that come back are parts of a sum over the ranks. How many masked tokens are on a
    context rank is not known beforehand, so each has room, and does the work, for all.
    """
    h = p.hidden
    return Layer(
        kind=f"bert-transform {p.shape} n{masked}",
        parameters=h * h + h + 2 * h,
        products=(linear(p.tokens, h, h),),
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

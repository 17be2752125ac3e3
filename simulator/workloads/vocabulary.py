"""Embedding, logits and loss over a vocabulary that is divided among ranks.

Megatron-LM's way (Shoeybi et al. 2019, section 3). `runtime.models.vocabulary` has the modules.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.program.operations import Op
from simulator.workloads.layer import Exchange, Layer, exchange, linear, linear_shapes
from simulator.workloads.transformer import SplitTransformer


def embedding(p: SplitTransformer) -> Layer:
    """Return the rows of this rank's share of the vocabulary; other tokens are 0."""
    rows = p.vocab // p.tensor
    return Layer(
        kind=f"embedding-part {p.shape} v{p.vocab}",
        shapes=((rows, p.hidden),),
        moved_bytes=4 * p.all_bytes,
        kernels=3,
        saved_bytes=9 * p.tokens,  # index, which are others'
        output_shape=(p.batch, p.sequence, p.hidden),
        output_bytes=p.all_bytes,
        whole=(0, "embedding"),
        tied=p.tied,
    )


def logits(p: SplitTransformer, whole: int, tokens: int, bias: bool) -> Layer:
    """Return the logits of this rank's share of the vocabulary: (tokens, vocab ÷ tensor)."""
    columns = p.vocab // p.tensor
    nbytes = tokens * columns * p.width
    weight, counted = linear_shapes(p.hidden, columns, bias), not (p.tied and p.is_alone)
    return Layer(
        kind=f"logits-part n{tokens} {p.shape} v{p.vocab}",
        shapes=(*weight[:counted], *weight[1:]),
        matmuls=(linear(tokens, p.hidden, columns),),
        deferred_bytes=nbytes,
        defers_input=True,
        output_shape=(tokens, columns),
        output_bytes=nbytes,
        starts_block=False,
        whole=(0 if p.tied else whole, "logits"),
        tied=p.tied,
    )


def cross_entropy(p: SplitTransformer, whole: int, tokens: int) -> list[Layer]:
    """Return the mean cross-entropy of logits that are nowhere whole.

    It takes their maximum, the sum of exponentials and the logit of the target over the
    ranks, then the mean (Shoeybi et al. 2019, section 3). It reads the logits, which are
    before it.
    """
    columns = p.vocab // p.tensor
    nbytes, row = tokens * columns * p.wide, tokens * p.wide
    if p.tensor == 1:
        return [_loss(p, whole, tokens, nbytes)]
    maximum = Layer(
        kind=f"maximum n{tokens} v{columns}",
        moved_bytes=tokens * columns * p.width,
        kernels=1,
        output_shape=(tokens,),
        output_bytes=row,
        starts_block=False,
        keeps=(False,),
        differentiable=False,
        whole=(whole, "maximum"),
    )
    highest = Exchange("tensor", Op.ALL_REDUCE, None, reduction="max")
    sums = Layer(
        kind=f"exponentials n{tokens} v{columns}",
        moved_bytes=5 * nbytes,  # shifted, exponentials, their sum
        kernels=5,
        saved_bytes=nbytes + 9 * tokens,  # exponentials; target's place, whether it is here
        output_shape=(2, tokens),
        output_bytes=2 * row,
        starts_block=False,
        reads=(0, 2),
        keeps=(False, False),
        whole=(whole, "exponentials"),
    )
    loss = Layer(
        kind=f"cross-entropy n{tokens}",
        moved_bytes=4 * row,
        kernels=3,
        starts_block=False,
        whole=(whole, "cross-entropy"),
    )
    return [
        maximum,
        replace(exchange(highest, (tokens,), row), differentiable=False),
        sums,
        exchange(Exchange("tensor", Op.ALL_REDUCE, None), (2, tokens), 2 * row),
        loss,
    ]


def _loss(p: SplitTransformer, whole: int, tokens: int, nbytes: int) -> Layer:
    """Return the mean cross-entropy where the logits of a token are in one place."""
    return Layer(
        kind=f"loss n{tokens} v{p.vocab}",
        moved_bytes=3 * nbytes,  # log-softmax
        kernels=2,
        saved_bytes=nbytes + 8 * tokens + p.wide,  # log-softmax, targets, their weight
        starts_block=False,
        keeps=(False,),
        whole=(whole, "loss"),
    )

"""A decoder-only transformer (GPT-2's layout), as Megatron-LM sizes it.

Pre-norm blocks, learned positions, biases everywhere but in the output projection,
no dropout, input and output embedding not tied. `simulator.workloads.attention` has the core of
attention. `runtime.models.gpt` is the module that computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.blocks import TransformerBlocks, chain
from simulator.workloads.context import attention as split_attention
from simulator.workloads.layer import Layer, norm_shapes
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer
from simulator.workloads.vocabulary import cross_entropy, embedding, logits


def layers(experiment: Experiment) -> list[Layer]:
    """Return embedding, then attention and MLP of each block, then the head with its loss.

    Activations are those autograd keeps: per token and hidden unit, attention keeps its
    norm's output, Q, K, V and the heads' output, and the softmax's output per head; MLP
    keeps its norm's output and both sides of the GELU (compare Korthikanti et al. 2022,
    section 4.1, whose count includes dropout masks and counts 16-bit values).
    """
    w, blocks = experiment.workload, TransformerBlocks(experiment, "", pre_norm=True)
    halves = [blocks.attention(causal=True), blocks.mlp()] * w.layers
    if w.tie_embeddings:  # a layer of its own: positions are not tied
        p = SplitTransformer.of(experiment)
        tied = chain(positions(p), halves, *blocks.tied_head(2 * w.layers + 2, 0))
        return [blocks.tokens_embedding(tied=True), *tied]
    first = Layer(
        kind=f"embedding {blocks.shape} v{w.vocab}",
        shapes=((w.vocab, w.hidden), (w.sequence, w.hidden)),
        moved_bytes=4 * blocks.hidden_bytes,  # rows looked up, positions added
        kernels=3,
        saved_bytes=8 * blocks.tokens,
        output_shape=blocks.output_shape,
        output_bytes=blocks.hidden_bytes,
    )
    norm = Layer(
        kind=f"head {blocks.shape} v{w.vocab}",
        shapes=norm_shapes(w.hidden),
        moved_bytes=2 * blocks.hidden_bytes,
        kernels=1,
        saved_bytes=blocks.hidden_bytes + blocks.norm_statistics,
        deferred_bytes=blocks.hidden_bytes,
    )
    return chain(first, halves, blocks.head(norm, blocks.tokens, bias=False))


def _half(p: SplitTransformer, whole: int, core: list[Layer]) -> list[Layer]:
    """Return norm, `core` and residual."""
    result = [p.norm(whole), *p.enter(), *core, *p.leave()]
    return [*result, p.add(whole, back=len(result))]


def _mlp(p: SplitTransformer, whole: int) -> list[Layer]:
    return _half(p, whole, [p.mlp(whole)])


def split_layers(
    experiment: Experiment, second: Callable[[SplitTransformer, int], list[Layer]] = _mlp
) -> list[Layer]:
    """Return the same, cut where ranks must talk (see `simulator.workloads.transformer`).

    Args:
        second: makes the parts of the second half of a block, from their whole layer's index.
    """
    p, blocks = SplitTransformer.of(experiment), experiment.workload.layers
    first = [embedding(p), *p.leave(), positions(p)]
    begin = 2 if p.tied else 1
    inner = split_blocks(p, blocks, second, begin)
    return [*first, *inner, *split_head(p, 2 * blocks + begin)]


def split_blocks(
    p: SplitTransformer,
    blocks: int,
    second: Callable[[SplitTransformer, int], list[Layer]] = _mlp,
    begin: int = 1,
) -> list[Layer]:
    """Return the parts of so many blocks; a stage cannot begin with the first one.

    Args:
        p: the plan.
        blocks: their number.
        second: makes the parts of the second half of a block, from their whole layer's index.
        begin: index of the first whole layer.
    """
    result: list[Layer] = []
    for block in range(blocks):
        whole = 2 * block + begin
        norm, *rest = _half(p, whole, split_attention(p, whole, causal=True))
        result += [replace(norm, starts_block=block > 0), *rest, *second(p, whole + 1)]
    return result


def split_head(p: SplitTransformer, whole: int) -> list[Layer]:
    """Return the parts of the head, from its whole layer's index."""
    result = [p.norm(whole), *p.enter(), logits(p, whole, p.tokens, bias=False)]
    return result + cross_entropy(p, whole, p.tokens)


def positions(p: SplitTransformer) -> Layer:
    """Return what adds the learned positions of the tokens here."""
    return Layer(
        kind=f"positions n{p.here} s{p.sequence} c{p.context} h{p.hidden}",
        shapes=((p.context * p.sequence, p.hidden),),
        moved_bytes=3 * p.here_bytes,
        kernels=2,
        output_shape=p.here_shape,
        output_bytes=p.here_bytes,
        starts_block=False,
        keeps=(False,),
        sums_over=p.copied_sums,
        copied_over=EVERYWHERE,
        whole=(1 if p.tied else 0, "positions"),
    )

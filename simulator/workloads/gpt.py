"""A decoder-only transformer (GPT-2's layout), as Megatron-LM sizes it.

Pre-norm blocks, learned positions, biases everywhere but in the output projection,
no dropout, input and output embedding not tied. `simulator.workloads.attention` has the core of
attention. `runtime.models.gpt` is the module that computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.workloads.attention import Core, form
from simulator.workloads.context import attention as split_attention
from simulator.workloads.layer import Layer, linear
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer


def layers(experiment: Experiment) -> list[Layer]:
    """Embedding, then attention and MLP of each block, then the head with its loss.

    Activations are those autograd keeps: per token and hidden unit, attention keeps its
    norm's output, Q, K, V and the heads' output, and the softmax's output per head; MLP
    keeps its norm's output and both sides of the GELU (compare Korthikanti et al. 2022,
    section 4.1, whose count includes dropout masks and counts 16-bit values).
    """
    w = experiment.workload
    batch, width, wide = experiment.microbatch_size, w.dtype_bytes, w.wide_bytes
    tokens = batch * w.sequence
    h, ffn, heads = w.hidden, w.ffn, w.heads
    shape = f"b{batch} s{w.sequence} h{h}"
    out = (batch, w.sequence, h)
    hidden_bytes = tokens * h * width
    norm_statistics = 2 * tokens * wide

    embedding = Layer(
        kind=f"embedding {shape} v{w.vocab}",
        parameters=w.vocab * h + w.sequence * h,
        moved_bytes=4 * hidden_bytes,  # rows looked up, positions added
        kernels=3,
        saved_bytes=8 * tokens,
        output_shape=out,
        output_bytes=hidden_bytes,
    )
    core = Core(form(experiment), batch * heads, w.sequence, h // heads, width, causal=True)
    attention = core.into(
        Layer(
            kind=f"attention {shape} a{heads}",
            parameters=2 * h + 3 * h * h + 3 * h + h * h + h,
            products=(linear(tokens, h, 3 * h), linear(tokens, h, h)),
            moved_bytes=5 * hidden_bytes,  # norm, residual
            kernels=2,
            saved_bytes=5 * hidden_bytes + norm_statistics,
            # Both products' inputs, gradients of Q, K, V and output.
            deferred_bytes=6 * hidden_bytes,
            output_shape=out,
            output_bytes=hidden_bytes,
        )
    )
    mlp = Layer(
        kind=f"mlp {shape} f{ffn}",
        parameters=2 * h + h * ffn + ffn + ffn * h + h,
        products=(linear(tokens, h, ffn), linear(tokens, ffn, h)),
        moved_bytes=5 * hidden_bytes + 2 * tokens * ffn * width,  # norm, residual; GELU
        kernels=3,
        saved_bytes=hidden_bytes + 2 * tokens * ffn * width + norm_statistics,
        deferred_bytes=2 * hidden_bytes + 2 * tokens * ffn * width,
        output_shape=out,
        output_bytes=hidden_bytes,
        starts_block=False,
    )
    head = Layer(
        kind=f"head {shape} v{w.vocab}",
        parameters=2 * h + h * w.vocab,
        products=(linear(tokens, h, w.vocab),),
        moved_bytes=2 * hidden_bytes + 3 * tokens * w.vocab * wide,  # norm; log-softmax
        kernels=3,
        saved_bytes=hidden_bytes
        + norm_statistics
        + tokens * w.vocab * wide  # log-softmax output
        + 8 * tokens  # targets
        + wide,  # the loss's total weight
        deferred_bytes=hidden_bytes + tokens * w.vocab * width,
        starts_block=False,
    )
    # The first block stays with the embedding: a stage cannot begin between them.
    first, *rest = [attention, mlp] * w.layers
    return [embedding, replace(first, starts_block=False), *rest, head]


def _half(p: SplitTransformer, whole: int, core: list[Layer]) -> list[Layer]:
    """Norm, `core` and residual."""
    result = [p.norm(whole), *p.enter(), *core, *p.leave()]
    return [*result, p.add(whole, back=len(result))]


def _mlp(p: SplitTransformer, whole: int) -> list[Layer]:
    return _half(p, whole, [p.mlp(whole)])


def split_layers(
    experiment: Experiment, second: Callable[[SplitTransformer, int], list[Layer]] = _mlp
) -> list[Layer]:
    """The same, cut where ranks must talk (see `simulator.workloads.transformer`).

    Args:
        second: makes the parts of the second half of a block, from their whole layer's index.
    """
    p, blocks = SplitTransformer.of(experiment), experiment.workload.layers
    result = [p.embedding(), *p.leave(), _positions(p)]
    for block in range(blocks):
        whole = 2 * block + 1
        norm, *rest = _half(p, whole, split_attention(p, whole, causal=True))
        result += [replace(norm, starts_block=block > 0), *rest, *second(p, whole + 1)]
    whole = 2 * blocks + 1
    result += [p.norm(whole), *p.enter(), p.logits(whole, p.tokens, bias=False)]
    return result + p.cross_entropy(whole, p.tokens)


def _positions(p: SplitTransformer) -> Layer:
    """Adds the learned positions of the tokens here."""
    return Layer(
        kind=f"positions n{p.here} s{p.sequence} c{p.context} h{p.hidden}",
        parameters=p.context * p.sequence * p.hidden,
        moved_bytes=3 * p.here_bytes,
        kernels=2,
        output_shape=p.here_shape,
        output_bytes=p.here_bytes,
        starts_block=False,
        keeps=(False,),
        sums_over=p.copied_sums,
        copied_over=EVERYWHERE,
        whole=(0, "positions"),
    )

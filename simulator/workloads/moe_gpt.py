"""GPT with a Mixture of Experts in every block: each token goes through `top_k` of
`experts` MLPs (Lepikhin et al. 2020, "GShard"; Fedus et al. 2021, "Switch Transformers").

A router, a linear layer without bias, gives each token a score for each expert. As
Megatron-core does by default, the gates are the softmax over the scores of the `top_k` that
are chosen, so they add up to 1. With `top_k` = 1 that would always be 1 and teach the router
nothing: the gate is then that of the softmax over all experts, as in Switch.

Capacity is static: in a microbatch every expert has the same number of token slots. Choices
beyond it are dropped; such a token passes on the residual (and its other choices) alone.
Slots go to all first choices in the order of the tokens, then to all second ones, as in GShard
(Megatron-core's default keeps the largest gates instead). So every shape, and with it the
time, is the same wherever the tokens go. There is no auxiliary loss: the load is what
training makes it, and is measured.

`runtime.models.moe_gpt` is the module that computes it, `simulator.routing` predicts what
is dropped.
"""

from __future__ import annotations

import math
from fractions import Fraction

from simulator.experiment import Experiment
from simulator.workloads import gpt
from simulator.workloads.layer import Layer, linear

INDEX_BYTES = 8


def capacity(experiment: Experiment) -> int:
    """Token slots of an expert: capacity_factor × tokens × top_k ÷ experts of a microbatch,
    rounded up (Fedus et al. 2021, equation 3).

    Never more than there are tokens: none chooses an expert twice.
    """
    w = experiment.workload
    tokens = experiment.microbatch_size * w.sequence
    factor = Fraction(str(w.capacity_factor))  # as written: 1.1 × 10 is 11 slots, not 12
    return min(tokens, math.ceil(factor * tokens * w.top_k / w.experts))


def layers(experiment: Experiment) -> list[Layer]:
    """Those of gpt, with the mixture where its MLP is."""
    w = experiment.workload
    result = gpt.layers(experiment)
    result[2:-1:2] = [mixture(experiment)] * w.layers
    return result


def mixture(experiment: Experiment) -> Layer:
    """x + the experts' outputs, weighted with the gates.

    Autograd keeps the norm's output, the gates, per choice its expert's output, and per slot
    what an expert keeps: its input and both sides of the GELU, used or not.
    """
    w = experiment.workload
    batch, width, h, ffn = experiment.microbatch_size, w.dtype_bytes, w.hidden, w.ffn
    tokens, per_expert = batch * w.sequence, capacity(experiment)
    choices, slots, scores = tokens * w.top_k, w.experts * per_expert, tokens * w.experts
    router = linear(tokens, h, w.experts)
    products = linear(slots, h, ffn) + linear(slots, ffn, h)
    parameters = 2 * h + h * w.experts + w.experts * (h * ffn + ffn + ffn * h + h)
    return Layer(
        kind=f"moe b{batch} s{w.sequence} h{h} f{ffn} e{w.experts} k{w.top_k} c{per_expert}",
        parameters=parameters,
        forward_flops=router + products,
        backward_input_flops=router + products,
        backward_weight_flops=router + products,
        # Tokens: norm, router, sum over choices, residual. Slots: filled, emptied, read and
        # written by the experts, with both sides of the GELU twice. Choices: read, weighted
        # and summed. Scores: masked, softmax, clamped, masked, sorted. Weights are read once.
        moved_bytes=(7 * tokens * h + slots * (6 * h + 4 * ffn) + 5 * choices * h) * width
        + scores * (9 * width + 2 * INDEX_BYTES)
        + parameters * width,
        saved_bytes=tokens * (h * width + 2 * max(width, 4))  # norm
        + scores * (width + 1)  # softmax's output, which are not chosen
        + slots * ((h + 2 * ffn) * width + INDEX_BYTES + 1)  # experts; token or none
        + choices * ((h + 1) * width + 2 * INDEX_BYTES + 1),  # output, gate; where; dropped
        deferred_bytes=(tokens * (h + w.experts) + slots * 2 * (h + ffn)) * width,
        output_shape=(batch, w.sequence, h),
        output_bytes=tokens * h * width,
        starts_block=False,
    )

"""GPT with a Mixture of Experts in every block.

Each token goes through `top_k` of `experts` MLPs (Lepikhin et al. 2020, "GShard"; Fedus et al.
2021, "Switch Transformers").

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

Expert parallelism spreads the experts over ranks that take other data: two all-to-alls bring
the slots of every rank to their experts and back (GShard; Rajbhandari et al. 2022,
"DeepSpeed-MoE"). What is not an expert is copied on those ranks.

`runtime.models.moe_gpt` is the module that computes it, `expert_load` predicts
what is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from simulator.experiment.experiment import Experiment
from simulator.program.operations import Op
from simulator.workloads import gpt
from simulator.workloads.layer import (
    REPLICATED,
    Exchange,
    Layer,
    Matmul,
    exchange,
    linear,
    linear_shapes,
    norm_shapes,
)
from simulator.workloads.transformer import EVERYWHERE, SplitTransformer

INDEX_BYTES = 8


def capacity(experiment: Experiment) -> int:
    """Return the token slots of an expert in a microbatch.

    capacity_factor × tokens × top_k ÷ experts, rounded up (Fedus et al. 2021, equation 3).
    Never more than there are tokens: none chooses an expert twice.
    """
    w = experiment.workload
    tokens = experiment.microbatch_size * w.sequence // experiment.parallel.context
    factor = Fraction(str(w.capacity_factor))  # as written: 1.1 × 10 is 11 slots, not 12
    return min(tokens, math.ceil(factor * tokens * w.top_k / w.experts))


def layers(experiment: Experiment) -> list[Layer]:
    """Return those of gpt, with the mixture where its MLP is."""
    w = experiment.workload
    result = gpt.layers(experiment)
    result[2:-1:2] = [mixture(experiment)] * w.layers
    return result


def expert_matmuls(count: int, slots: int, hidden: int, ffn: int) -> tuple[Matmul, Matmul]:
    """Return the two products of `count` experts with equally many slots."""
    return Matmul(slots, ffn, hidden, count), Matmul(slots, hidden, ffn, count)


def _expert_shapes(count: int, h: int, ffn: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the parameters of `count` experts, without the last biases."""
    return (count, h, ffn), (count, ffn), (count, ffn, h)


def mixture(experiment: Experiment) -> Layer:
    """Return a mixture: x + the experts' outputs, weighted with the gates.

    Autograd keeps the norm's output, the gates, per choice its expert's output, and per slot
    what an expert keeps: its input and both sides of the GELU, used or not.
    """
    w = experiment.workload
    batch, width, h, ffn = experiment.microbatch_size, w.dtype_bytes, w.hidden, w.ffn
    tokens, per_expert = batch * w.sequence, capacity(experiment)
    choices, slots, scores = tokens * w.top_k, w.experts * per_expert, tokens * w.experts
    return Layer(
        kind=f"moe b{batch} s{w.sequence} h{h} f{ffn} e{w.experts} k{w.top_k} c{per_expert}",
        shapes=(
            *norm_shapes(h),
            *linear_shapes(h, w.experts, bias=False),
            *_expert_shapes(w.experts, h, ffn),
            (w.experts, h),
        ),
        matmuls=(
            linear(tokens, h, w.experts),
            *expert_matmuls(w.experts, per_expert, h, ffn),
        ),
        # Tokens: norm, sum over choices, residual. Slots: filled and emptied, GELU. Choices:
        # read, weighted and summed. Scores: masked, softmax, clamped, masked, sorted.
        moved_bytes=(6 * tokens * h + slots * (4 * h + 2 * ffn) + 5 * choices * h) * width
        + scores * (8 * width + 2 * INDEX_BYTES),
        kernels=22,
        saved_bytes=tokens * (h * width + 2 * w.wide_bytes)  # norm
        + scores * (width + 1)  # softmax's output, which are not chosen
        + slots * ((h + 2 * ffn) * width + INDEX_BYTES + 1)  # experts; token or none
        + choices * ((h + 1) * width + 2 * INDEX_BYTES + 1),  # output, gate; where; dropped
        deferred_bytes=(tokens * (h + w.experts) + slots * 2 * (h + ffn)) * width,
        output_shape=(batch, w.sequence, h),
        output_bytes=tokens * h * width,
        starts_block=False,
    )


def split_layers(experiment: Experiment) -> list[Layer]:
    """Return the same, cut where ranks must talk: only at mixtures without tensor or context."""
    p = SplitTransformer.of(experiment)
    if max(p.tensor, p.context) > 1:
        return gpt.split_layers(experiment, lambda p, whole: split_mixture(experiment, p, whole))
    first, *inner, head = [
        replace(layer, whole=(index, "")) for index, layer in enumerate(gpt.layers(experiment))
    ]
    result = [first]
    for attention, mlp in zip(inner[::2], inner[1::2], strict=True):
        result += [attention, *split_mixture(experiment, p, mlp.whole[0])]
    return [*result, head]


@dataclass(frozen=True)
class _SplitMixture:
    """Parts of one mixture, as one rank has them.

    Attributes:
        whole: index of the layer that they are parts of.
        each: token slots of an expert in a microbatch.
        degree: ranks among which the experts are divided.
    """

    experiment: Experiment
    p: SplitTransformer
    whole: int
    each: int
    degree: int

    @property
    def shape(self) -> str:
        """Sizes that all parts have in the name of their kind."""
        w = self.experiment.workload
        return f"{self.p.shape} e{w.experts} k{w.top_k} c{self.each}"

    @property
    def slots(self) -> int:
        """Slots that this rank's tokens fill, of all experts together."""
        return self.experiment.workload.experts * self.each

    @property
    def slots_bytes(self) -> int:
        """Bytes of the tokens in all slots."""
        return self.slots * self.p.hidden * self.p.width

    @property
    def buffer(self) -> tuple[int, int, int]:
        """Shape of the tokens in all slots: (experts, slots of each, hidden)."""
        return (self.experiment.workload.experts, self.each, self.p.hidden)

    def router(self) -> Layer:
        """Return the product that scores every expert for every token, and the choice."""
        p, experts = self.p, self.experiment.workload.experts
        scores = p.tokens * experts
        return Layer(
            kind=f"router {self.shape}",
            shapes=linear_shapes(p.hidden, experts, bias=False),
            matmuls=(linear(p.tokens, p.hidden, experts),),
            moved_bytes=scores * (8 * p.width + 2 * INDEX_BYTES),
            kernels=12,
            saved_bytes=scores * p.width + scores,  # softmax's output, which are not chosen
            deferred_bytes=scores * p.width,
            defers_input=True,
            output_shape=(p.tokens, experts),
            output_bytes=scores * p.width,
            starts_block=False,
            sums_over=(*REPLICATED, "tensor"),
            copied_over=EVERYWHERE,
            whole=(self.whole, "router"),
        )

    def dispatch(self) -> Layer:
        """Return what puts tokens into slots."""
        return Layer(
            kind=f"dispatch {self.shape}",
            moved_bytes=4 * self.slots_bytes,
            kernels=3,
            saved_bytes=self.slots * (INDEX_BYTES + 1),  # token or none
            output_shape=self.buffer,
            output_bytes=self.slots_bytes,
            starts_block=False,
            reads=(1, 0),
            keeps=(False, False),
            whole=(self.whole, "dispatch"),
        )

    def exchanges(self) -> list[Layer]:
        """Return the all-to-all between the ranks that have other experts, if there are any."""
        if self.degree == 1:
            return []
        how = Exchange("expert", Op.ALL_TO_ALL, Op.ALL_TO_ALL)
        return [exchange(how, self.buffer, self.slots_bytes)]

    def experts(self) -> Layer:
        """Return the experts that are here, or a share of the columns of each."""
        p, w = self.p, self.experiment.workload
        h, columns = p.hidden, p.ffn // p.tensor
        here = w.experts // self.degree
        inner = 2 * self.slots * columns * p.width  # both sides of GELU
        # Slots come from each rank for each expert, and are put together expert by expert.
        sorts = self.degree > 1 and here > 1
        return Layer(
            kind=f"experts n{here} of {self.shape} f{w.ffn}",
            shapes=((here, h // p.tensor), *_expert_shapes(here, h, columns)),
            matmuls=expert_matmuls(here, self.each * self.degree, h, columns),
            moved_bytes=4 * sorts * self.slots_bytes + inner,
            kernels=1 + 2 * sorts,
            saved_bytes=inner + sorts * self.slots_bytes,
            deferred_bytes=(1 + sorts) * self.slots_bytes + inner,
            defers_input=not sorts,
            output_shape=self.buffer,
            output_bytes=self.slots_bytes,
            starts_block=False,
            keeps=(not sorts,),
            sums_over=("data", "context"),  # tokens of all expert ranks are here already
            copied_over=(),
            whole=(self.whole, "experts"),
        )

    def combine(self, back: int) -> Layer:
        """Return the sum of a token's experts with its gates, `back` boundaries ago."""
        p = self.p
        choices = p.tokens * self.experiment.workload.top_k
        return Layer(
            kind=f"combine {self.shape}",
            moved_bytes=5 * choices * p.hidden * p.width + p.all_bytes,
            kernels=3,
            saved_bytes=choices * ((p.hidden + 1) * p.width + 2 * INDEX_BYTES + 1),
            output_shape=(p.batch, p.sequence, p.hidden),
            output_bytes=p.all_bytes,
            starts_block=False,
            reads=(0, back),
            keeps=(False, False),
            whole=(self.whole, "combine"),
        )

    def residual(self, back: int) -> Layer:
        """Return what adds the input of the mixture, `back` boundaries ago."""
        p = self.p
        return Layer(
            kind=f"residual n{p.here} h{p.hidden}",
            moved_bytes=3 * p.here_bytes,
            kernels=1,
            output_shape=p.here_shape,
            output_bytes=p.here_bytes,
            starts_block=False,
            reads=(0, back),
            keeps=(False, False),
            whole=(self.whole, "residual"),
        )


def split_mixture(experiment: Experiment, p: SplitTransformer, whole: int) -> list[Layer]:
    """Return norm, router, dispatch, experts between two all-to-alls, combine, residual.

    With tensor > 1 a rank has a share of every expert's MLP, so that everything up to the
    residual is a part of a sum over ranks. It is linear in the experts' outputs: tokens are
    summed, which are fewer than slots. Gradients of the router are parts of a sum, too.
    """
    m = _SplitMixture(experiment, p, whole, capacity(experiment), experiment.parallel.expert)
    result = [p.norm(whole), *p.enter(), m.router()]
    gates = len(result)
    result += [m.dispatch(), *m.exchanges(), m.experts(), *m.exchanges()]
    result += [m.combine(len(result) - gates), *p.leave()]
    return [*result, m.residual(len(result))]

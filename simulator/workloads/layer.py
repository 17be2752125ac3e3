"""A layer as the simulator knows it, without torch: its work, its memory, its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from simulator.program.operations import Op

REPLICATED = ("data", "expert", "context")
"""Mesh axes whose ranks compute with the same weights on other data, so that the gradients
of a layer are sums over them."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective between two layers.

    `forward` is done with the tensor on its way forward, `backward` with its gradient on the
    way back (None: nothing). Megatron-LM's conjugate pairs (Shoeybi et al. 2019, section 3;
    Korthikanti et al. 2022, section 4.2.2): f is (None, ALL_REDUCE), g is (ALL_REDUCE, None);
    with sequence parallelism f is (ALL_GATHER, REDUCE_SCATTER) and g is (REDUCE_SCATTER,
    ALL_GATHER).

    Attributes:
        axis: the axis of the device mesh whose ranks take part.
        reduction: what an all-reduce computes, "sum" or "max".
        regathered: what was gathered is dropped after the forward pass and gathered once more
            before the backward pass (Korthikanti et al. 2022, section 4.2.2).
    """

    axis: str
    forward: Op | None
    backward: Op | None
    reduction: str = "sum"
    regathered: bool = False


@dataclass(frozen=True, slots=True)
class Matmul:
    """A matrix product (m × k) · (k × n), `batch` times with other operands.

    Attributes:
        of_weights: the right operand is a weight, whose gradient is for the backward pass
            for weights; else both operands are activations.
        into_input: the left operand has a gradient (a batch has none).
        fused: one step of a fused attention kernel, not a kernel of its own.
        share: the part of it that is computed: a fused kernel leaves out what a causal mask hides.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    of_weights: bool = True
    into_input: bool = True
    fused: bool = False
    share: float = 1.0

    @property
    def flops(self) -> float:
        """Floating-point operations; a multiply-add is two."""
        return 2.0 * self.batch * self.m * self.n * self.k * self.share

    @property
    def into_left(self) -> Matmul:
        """The gradient of the left operand: that of the output by the right operand, transposed."""
        return replace(self, n=self.k, k=self.n)

    @property
    def into_right(self) -> Matmul:
        """The gradient of the right operand: the left one, transposed, by that of the output."""
        return replace(self, m=self.k, k=self.m)

    @property
    def backward_input(self) -> tuple[Matmul, ...]:
        """Products for the gradients of activations."""
        left = (self.into_left,) if self.into_input else ()
        return left if self.of_weights else (*left, self.into_right)

    @property
    def backward_weight(self) -> tuple[Matmul, ...]:
        """Products for the gradient of a weight."""
        return (self.into_right,) if self.of_weights else ()


def flops(matmuls: Iterable[Matmul]) -> float:
    """Return the floating-point operations of all products together."""
    return sum(matmul.flops for matmul in matmuls)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model for one microbatch on one rank.

    Layers are the atoms of segments and stages: communication can only happen between
    them, and is a layer of its own (`exchange`). Boundary i is the tensor that layer i - 1
    puts out; boundary 0 is the batch. Bytes are for one microbatch on one rank;
    `shapes` are those of its parameters, as torch has them, in the order of the module.

    Attributes:
        kind: names the work; layers of one kind cost the same.
        exchange: this layer is communication and nothing else.
        reads: how many boundaries back each of its inputs is: (0,) is the one before it.
        keeps: per input, whether the backward pass needs it.
        differentiable: the output has a gradient.
        sums_over: mesh axes over which the gradients of its parameters are sums.
        copied_over: mesh axes of one model over which its parameters are copies.
        tied: its parameters are those of the other layers that are tied; where one stage has
            several of these, only the first of them counts them.
        whole: index, and part, of the layer that this is a part of where one rank has it
            all; -1: the layer itself.
        matmuls: matrix products of the forward pass; those of the backward pass follow.
        moved_bytes, kernels: read and written by a forward pass that computes one operator
            after the other, and how many of them there are, without matrix products.
        recomputed, recomputed_bytes, recomputed_kernels: the same three of the part of the
            forward pass that the backward pass for inputs runs again, because what it made
            was not kept.
        saved_bytes: kept for the backward pass by autograd, without the layer's input
            and without parameters.
        deferred_bytes: kept from the backward pass for inputs to the one for weights where
            the two are split: inputs of weight products and gradients of their outputs,
            without the layer's own input.
        defers_input: the layer's own input is the input of a weight product.
        output_shape: of the tensor handed to the next layer.
        output_bytes: of the tensor handed to the next layer (0 for a loss).
        loss_weight: the factor of the output in the loss of training, if no layer reads it: then
            the output is a loss. A model may have several.
        starts_block: a pipeline stage may begin here.
        seconds: fixed (forward, backward input, backward weight) times instead of a cost
            model (`unit`).
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...] = ()
    matmuls: tuple[Matmul, ...] = ()
    moved_bytes: float = 0.0
    kernels: int = 0
    recomputed: tuple[Matmul, ...] = ()
    recomputed_bytes: float = 0.0
    recomputed_kernels: int = 0
    saved_bytes: int = 0
    deferred_bytes: int = 0
    defers_input: bool = False
    output_shape: tuple[int, ...] = ()
    output_bytes: int = 0
    loss_weight: float = 1.0
    starts_block: bool = True
    seconds: tuple[float, float, float] | None = None
    exchange: Exchange | None = None
    reads: tuple[int, ...] = (0,)
    keeps: tuple[bool, ...] = (True,)
    differentiable: bool = True
    sums_over: tuple[str, ...] = REPLICATED
    copied_over: tuple[str, ...] = ("expert",)
    tied: bool = False
    whole: tuple[int, str] = (-1, "")

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(map(prod, self.shapes))

    @property
    def backward_input(self) -> tuple[Matmul, ...]:
        """Products for the gradient of the input, without what is run again."""
        return tuple(made for matmul in self.matmuls for made in matmul.backward_input)

    @property
    def backward_weight(self) -> tuple[Matmul, ...]:
        """Products for the gradients of the weights."""
        return tuple(made for matmul in self.matmuls for made in matmul.backward_weight)

    @property
    def forward_flops(self) -> float:
        """FLOPs of the forward pass."""
        return flops(self.matmuls)

    @property
    def backward_input_flops(self) -> float:
        """FLOPs of the backward pass for the input, without what is run again."""
        return flops(self.backward_input)

    @property
    def backward_weight_flops(self) -> float:
        """FLOPs of the backward pass for weights."""
        return flops(self.backward_weight)

    @property
    def recomputed_flops(self) -> float:
        """FLOPs of what the backward pass runs again."""
        return flops(self.recomputed)

    @property
    def flops(self) -> float:
        """FLOPs of forward and backward together, without what is run again."""
        return self.forward_flops + self.backward_input_flops + self.backward_weight_flops


def exchange(how: Exchange, shape: tuple[int, ...], nbytes: int) -> Layer:
    """Return a collective as a layer; its output is of `shape` and has `nbytes`."""
    return Layer(
        kind="exchange",
        exchange=how,
        keeps=(False,),
        output_shape=shape,
        output_bytes=nbytes,
        starts_block=False,
    )


def linear(tokens: int, inputs: int, outputs: int) -> Matmul:
    """Return the product (tokens × inputs) by a weight (inputs × outputs)."""
    return Matmul(tokens, outputs, inputs)


def linear_shapes(inputs: int, outputs: int, bias: bool = True) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a weight and, if there is one, a bias."""
    return ((outputs, inputs), (outputs,)) if bias else ((outputs, inputs),)


def norm_shapes(width: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the gain and the bias of a norm."""
    return (width,), (width,)

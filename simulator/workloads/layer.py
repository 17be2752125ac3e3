"""What the simulator knows of a layer, without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.program import Op

REPLICATED = ("data", "expert", "context")
"""Mesh axes whose ranks compute with the same weights on other data, so that the gradients
of a layer are sums over them."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective between two layers: what is done with the tensor on its way forward, and
    with its gradient on the way back (None: nothing).

    Megatron-LM's conjugate pairs (Shoeybi et al. 2019, section 3; Korthikanti et al. 2022,
    section 4.2.2): f is (None, ALL_REDUCE), g is (ALL_REDUCE, None); with sequence
    parallelism f is (ALL_GATHER, REDUCE_SCATTER) and g is (REDUCE_SCATTER, ALL_GATHER).

    Attributes:
        axis: of the device mesh, whose ranks take part.
        reduction: of an all-reduce, "sum" or "max".
        again: what was gathered is dropped after the forward pass and gathered once more
            before the backward pass (Korthikanti et al. 2022, section 4.2.2).
    """

    axis: str
    forward: Op | None
    backward: Op | None
    reduction: str = "sum"
    again: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model for one microbatch on one rank.

    Layers are the atoms of segments and stages: communication can only happen between
    them, and is a layer of its own (`exchange`). Boundary i is the tensor that layer i - 1
    puts out; boundary 0 is the batch. Bytes are for one microbatch on one rank;
    `parameters` is a count.

    Attributes:
        kind: names the work; layers of one kind cost the same.
        exchange: this layer is communication and nothing else.
        reads: how many boundaries back each of its inputs is: (0,) is the one before it.
        keeps: per input, whether the backward pass needs it.
        differentiable: the output has a gradient.
        sums_over: mesh axes over which the gradients of its parameters are sums.
        copied_over: mesh axes of one model over which its parameters are copies.
        whole: index, and part, of the layer that this is a part of where one rank has it
            all; -1: the layer itself.
        forward_flops: of the matrix products (a multiply-add is two FLOPs).
        backward_input_flops, backward_weight_flops: the same for the two halves of the
            backward pass.
        again_flops, again_bytes: of the part of the forward pass that the backward pass for
            inputs runs again, because its insides were not kept; FLOPs and bytes moved.
        moved_bytes: read and written by a forward pass that computes one operator after
            the other.
        saved_bytes: kept for the backward pass by autograd, without the layer's input
            and without parameters.
        deferred_bytes: kept from the backward pass for inputs to the one for weights where
            the two are split: inputs of weight products and gradients of their outputs,
            without the layer's own input.
        defers_input: the layer's own input is the input of a weight product.
        output_shape: of the tensor handed to the next layer.
        output_bytes: of the tensor handed to the next layer (0 for a loss).
        starts_block: a pipeline stage may begin here.
        seconds: fixed (forward, backward input, backward weight) times instead of a cost
            model (`unit`).
    """

    kind: str
    parameters: int = 0
    forward_flops: float = 0.0
    backward_input_flops: float = 0.0
    backward_weight_flops: float = 0.0
    again_flops: float = 0.0
    again_bytes: float = 0.0
    moved_bytes: float = 0.0
    saved_bytes: int = 0
    deferred_bytes: int = 0
    defers_input: bool = False
    output_shape: tuple[int, ...] = ()
    output_bytes: int = 0
    starts_block: bool = True
    seconds: tuple[float, float, float] | None = None
    exchange: Exchange | None = None
    reads: tuple[int, ...] = (0,)
    keeps: tuple[bool, ...] = (True,)
    differentiable: bool = True
    sums_over: tuple[str, ...] = REPLICATED
    copied_over: tuple[str, ...] = ("expert",)
    whole: tuple[int, str] = (-1, "")

    @property
    def flops(self) -> float:
        """Of forward and backward together, without what is run again."""
        return self.forward_flops + self.backward_input_flops + self.backward_weight_flops


def exchange(how: Exchange, shape: tuple[int, ...], nbytes: int) -> Layer:
    """A collective as a layer; its output is of `shape` and has `nbytes`."""
    return Layer(
        kind="exchange",
        exchange=how,
        keeps=(False,),
        output_shape=shape,
        output_bytes=nbytes,
        starts_block=False,
    )


def attention_again(layer: Layer, flops: float, heads_bytes: int, scores_bytes: int) -> Layer:
    """A layer with attention that keeps Q, K and V, but not the softmax's output: the core,
    all between them and the merged heads, runs again in the backward pass (Korthikanti et al.
    2022, section 5, "selective activation recomputation").

    Args:
        flops: of the core's forward pass, two batched products.
        heads_bytes: of Q, and of the merged heads; scores_bytes: of the softmax's output.
    """
    # Q, K and V are copied apart and read, the output is written and merged; the scores are
    # written, masked, read and written by the softmax, and read.
    return replace(
        layer,
        kind=f"{layer.kind} again",
        saved_bytes=layer.saved_bytes - scores_bytes,
        again_flops=flops,
        again_bytes=12.0 * heads_bytes + 5.0 * scores_bytes,
    )


def linear(tokens: int, inputs: int, outputs: int) -> float:
    """FLOPs of a (tokens × inputs) by (inputs × outputs) product."""
    return 2.0 * tokens * inputs * outputs

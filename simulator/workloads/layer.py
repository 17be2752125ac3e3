"""What the simulator knows of a layer, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model for one microbatch on one rank.

    Layers are the atoms of segments and stages: communication can only happen between
    them. Bytes are for one microbatch; `parameters` is a count.

    Attributes:
        kind: names the work; layers of one kind cost the same.
        forward_flops: of the matrix products (a multiply-add is two FLOPs).
        backward_input_flops, backward_weight_flops: the same for the two halves of the
            backward pass.
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
    moved_bytes: float = 0.0
    saved_bytes: int = 0
    deferred_bytes: int = 0
    defers_input: bool = False
    output_shape: tuple[int, ...] = ()
    output_bytes: int = 0
    starts_block: bool = True
    seconds: tuple[float, float, float] | None = None

    @property
    def flops(self) -> float:
        """Of forward and backward together."""
        return self.forward_flops + self.backward_input_flops + self.backward_weight_flops


def linear(tokens: int, inputs: int, outputs: int) -> float:
    """FLOPs of a (tokens × inputs) by (inputs × outputs) product."""
    return 2.0 * tokens * inputs * outputs

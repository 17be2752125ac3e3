"""A stack of two-layer perceptrons with residuals, trained to predict the next window.

Each block is x + fc2(GELU(fc1(x))); the loss is the mean squared error.
`runtime.models.mlp` is the module that computes it.
"""

from __future__ import annotations

from simulator.experiment import Experiment
from simulator.workloads.layer import Layer, linear


def layers(experiment: Experiment) -> list[Layer]:
    """The blocks, then the loss. The first block's input needs no gradient."""
    w = experiment.workload
    tokens = experiment.microbatch_size * w.sequence
    h, ffn, width = w.hidden, w.ffn, w.dtype_bytes
    hidden_bytes, ffn_bytes = tokens * h * width, tokens * ffn * width
    shape = f"b{experiment.microbatch_size} s{w.sequence} h{h} f{ffn}"
    into, out = linear(tokens, h, ffn), linear(tokens, ffn, h)

    def block(first: bool) -> Layer:
        return Layer(
            kind=f"perceptron{'-first' if first else ''} {shape}",
            parameters=h * ffn + ffn + ffn * h + h,
            forward_flops=into + out,
            backward_input_flops=out if first else into + out,
            backward_weight_flops=into + out,
            moved_bytes=4 * hidden_bytes + 4 * ffn_bytes,
            # The first block's input is a batch, held by autograd, not by a boundary.
            saved_bytes=2 * ffn_bytes + (hidden_bytes if first else 0),
            deferred_bytes=hidden_bytes + 2 * ffn_bytes + (hidden_bytes if first else 0),
            defers_input=True,
            output_shape=(experiment.microbatch_size, w.sequence, h),
            output_bytes=hidden_bytes,
        )

    loss = Layer(
        kind=f"squared-error {shape}",
        moved_bytes=3 * hidden_bytes,
        saved_bytes=hidden_bytes,  # the target
        starts_block=False,
    )
    return [block(True)] + [block(False)] * (w.layers - 1) + [loss]

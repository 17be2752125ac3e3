"""What a pass through some layers is described to do, beside what it really does."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.ledger import SavedBytes
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment, boundary
from simulator.experiment.experiment import Experiment
from simulator.strategies.stages.dataflow import Flow, deferred_bytes, saved_bytes
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
IN_PLACE = {
    torch.ops.aten.addmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * b[1],
    torch.ops.aten.baddbmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2],
}
"""FLOPs of products that are added to a gradient, which torch's counter does not know."""


def random_boundary(experiment: Experiment, index: int) -> torch.Tensor:
    """Random values in place of the tensor that enters layer `index`."""
    shape, dtype = boundary(experiment, index)
    return torch.randn(shape, dtype=dtype)


def shapes_of(segment: Segment) -> list[tuple[int, ...]]:
    """Return the shapes of all parameters, in the order in which flat buffers have them."""
    return [
        tuple(parameter.shape)
        for module in segment.modules()
        for _, parameter in module.named_parameters(recurse=False)
    ]


def one_pass(
    experiment: Experiment, first: int, last: int, split: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(description, what really was) of forward and backward through layers [first, last)."""
    layers = describe(experiment)
    segment = Segment(experiment, first, last, CPU)
    batch, target = microbatch(experiment, 0, 0, CPU)
    x = random_boundary(experiment, first) if first else batch
    gradient = None if segment.losses else random_boundary(experiment, last)
    Parameters(experiment, [segment])  # gradients go into a flat buffer
    excluded = [*([x] if first else []), *segment.parameters(), *segment.buffers()]
    with FlopCounterMode(display=False) as forward, SavedBytes(excluded) as saved:
        outputs, graph = forward_pass(segment, {first: x}, target, 1.0, split)
    output = outputs[last]
    with FlopCounterMode(display=False) as backward:
        input_gradient = backward_pass(graph, {last: gradient}).get(first)
    mine = layers[first:last]
    shape = () if segment.losses else mine[-1].output_shape
    into_input = sum(layer.backward_input_flops + layer.recomputed_flops for layer in mine)
    into_weight = sum(layer.backward_weight_flops for layer in mine)
    described = {
        "parameters": [shape for layer in mine for shape in layer.shapes],
        "forward": sum(layer.forward_flops for layer in mine),
        "backward": into_input + (0 if split else into_weight),
        "saved": saved_bytes(Flow(layers), first, last),
        "output": (shape, mine[-1].output_bytes),
        "input gradient": layers[first - 1].output_bytes if first else 0,
    }
    real = {
        "parameters": shapes_of(segment),
        "forward": forward.get_total_flops(),
        "backward": backward.get_total_flops(),
        "saved": saved.nbytes,
        "output": (tuple(output.shape), 0 if segment.losses else output.nbytes),
        "input gradient": input_gradient.nbytes if input_gradient is not None else 0,
    }
    if split:
        described |= {"weights": into_weight, "deferred": deferred_bytes(Flow(layers), first, last)}
        real["deferred"] = graph.deferred.nbytes(excluding=[x] if first else [])
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as weights:
            graph.deferred.run()
        real["weights"] = weights.get_total_flops()
    return described, real

"""Every segment between two exchanges is what `simulator.workloads` says it is."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from runtime.data import microbatch
from runtime.ledger import SavedBytes
from runtime.models import Segment, boundary
from runtime.operations import backward_pass, forward_pass
from runtime.parameters import Parameters
from simulator.strategies import lower, mesh_of
from simulator.strategies.flow import Flow, deferred_bytes, saved_bytes
from simulator.workloads import describe

CPU = torch.device("cpu")
IN_PLACE = {
    torch.ops.aten.addmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * b[1],
    torch.ops.aten.baddbmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2],
}
PLANS = (
    [
        {"model": model, "tensor": tensor, "sequence_parallel": shared, "dtype": dtype}
        for model in ("gpt", "bert")
        for tensor, shared, dtype in ((2, False, "fp32"), (2, True, "fp64"), (4, True, "fp32"))
    ]
    + [
        {"model": "mlp", "tensor": tensor, "tensor_style": style, "dtype": "fp64"}
        for tensor in (2, 4)
        for style in ("column", "row", "megatron")
    ]
    + [
        {"model": "moe-gpt", "capacity_factor": 0.7, **plan}
        for plan in (
            {"expert": 2, "dtype": "fp64"},
            {"expert": 4, "top_k": 1, "dtype": "fp32"},
            {"tensor": 2, "dtype": "fp32"},
            {"expert": 2, "tensor": 2, "experts": 8, "top_k": 3, "dtype": "fp64"},
            {"expert": 2, "tensor": 4, "sequence_parallel": True, "dtype": "fp32"},
        )
    ]
    + [
        {"model": "gpt", "tensor": 2, "sequence_parallel": True, "recompute": "selective"},
        {"model": "bert", "tensor": 2, "recompute": "selective"},
        {"model": "moe-gpt", "expert": 2, "recompute": "selective"},
        {"model": "gpt", "tensor": 2, "sequence_parallel": True, "recompute": "full"},
        {"model": "moe-gpt", "expert": 2, "tensor": 2, "recompute": "full"},
    ]
)


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items())


def random(experiment, index):
    shape, dtype = boundary(experiment, index)
    return torch.randn(shape, dtype=dtype)


def sizes(tensors):
    return {index: (tuple(tensor.shape), tensor.nbytes) for index, tensor in tensors.items()}


def one_pass(experiment, rank, span, split):
    """(description, what really was) of forward and backward through the layers of `span`."""
    layers, (first, last) = describe(experiment), span
    flow = Flow(layers)
    segment = Segment(experiment, first, last, CPU, mesh_of(experiment).coordinate(rank))
    flat = Parameters(experiment, [segment])
    batch, target = microbatch(experiment, 0, 0, CPU)
    inputs = {index: random(experiment, index) for index in segment.inputs}
    excluded = [*inputs.values(), *segment.parameters(), *segment.buffers()]
    with FlopCounterMode(display=False) as forward, SavedBytes(excluded) as saved:
        outputs, graph = forward_pass(
            segment, {0: batch, **inputs}, target, 1.0, split, inputs.__getitem__
        )
    if segment.is_loss:
        outputs = {}
    saved.exclude(outputs.values())
    gradients = {index: random(experiment, index) for index in graph.roots if index in outputs}
    with FlopCounterMode(display=False) as backward:
        given = backward_pass(graph, gradients)
    mine = layers[first:last]
    described = {
        "parameters": sum(layer.parameters for layer in mine),
        "forward": sum(layer.forward_flops for layer in mine),
        "backward": sum(layer.backward_input_flops + layer.again_flops for layer in mine),
        "saved": saved_bytes(flow, first, last),
        "outputs": {
            index: (layers[index - 1].output_shape, layers[index - 1].output_bytes)
            for index in flow.outputs(first, last)
        },
        "gradients": sizes({i: x for i, x in inputs.items() if flow.differentiable(i)}),
        "weights": sum(layer.backward_weight_flops for layer in mine),
        "deferred": deferred_bytes(flow, first, last) if split else 0,
    }
    real = {
        "parameters": flat.values.numel(),
        "forward": forward.get_total_flops(),
        "backward": backward.get_total_flops(),
        "saved": saved.nbytes,
        "outputs": sizes(outputs),
        "gradients": sizes(given),
        "weights": 0,
        "deferred": 0,
    }
    if not split:
        described["backward"] += described.pop("weights")
        real.pop("weights")
    else:
        assert graph.deferred is not None
        real["deferred"] = graph.deferred.nbytes(excluding=inputs.values())
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as weights:
            graph.deferred.run()
        real["weights"] = weights.get_total_flops()
    return described, real


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_every_segment_is_as_described(experiment, keys, split):
    tiny = experiment(**{"layers": 2, "hidden": 16, "heads": 4, "ffn_hidden": 24, **keys})
    spans = {i.task.layers for i in lower(tiny).ranks[1] if i.task.op == "F"}
    assert len(spans) > 3
    for span in sorted(spans):
        described, real = one_pass(tiny, 1, span, split)
        assert real == described, [layer.kind for layer in describe(tiny)[slice(*span)]]

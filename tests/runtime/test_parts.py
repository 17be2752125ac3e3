"""What one rank has of a split layer is what `simulator.workloads` says it is."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from runtime.data import microbatch
from runtime.ledger import SavedBytes
from runtime.models import Segment, boundary
from runtime.operations import backward_pass, forward_pass
from runtime.parameters import Parameters
from simulator.strategies import mesh_of
from simulator.strategies.flow import Flow, deferred_bytes, saved_bytes
from simulator.strategies.segments import cut
from simulator.workloads import describe

CPU = torch.device("cpu")
SHAPE = {"layers": 1, "hidden": 16, "heads": 4, "sequence": 16, "global_batch": 3}
WAYS = [
    {"tensor": 2},
    {"tensor": 4, "global_batch": 4, "sequence_parallel": True},
    *(
        {"context": context, "context_style": style, **more}
        for context in (2, 4)
        for style in ("ring", "ulysses")
        for more in ({}, {"heads": 8, "tensor": 2}, {"hidden": 8, "global_batch": 1})
    ),
]
CASES = [
    {"model": model, "dtype": dtype, **way}
    for model, dtype, way in product(("gpt", "bert"), ("fp32", "fp64"), WAYS)
]
IN_PLACE = {
    torch.ops.aten.addmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * b[1],
}


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items())


def one_pass(experiment, first, last, place, split):
    """(description, what really was) of forward and backward through layers [first, last)."""
    layers = describe(experiment)
    flow, segment = Flow(layers), Segment(experiment, first, last, CPU, place)
    batch, target = microbatch(experiment, 0, 0, CPU)

    def random(index):
        shape, dtype = boundary(experiment, index)
        return torch.randn(shape, dtype=dtype)

    inputs = {index: random(index) for index in segment.inputs}
    flat = Parameters(experiment, [segment])
    excluded = [*inputs.values(), *segment.parameters(), *segment.buffers()]
    with FlopCounterMode(display=False) as forward, SavedBytes(excluded) as saved:
        outputs, graph = forward_pass(segment, {0: batch, **inputs}, target, 1.0, split)
    if not segment.is_loss:
        saved.exclude(outputs.values())
    given = {} if segment.is_loss else {index: torch.randn_like(x) for index, x in outputs.items()}
    with FlopCounterMode(display=False) as backward:
        gradients = backward_pass(graph, given)
    mine = layers[first:last]
    sizes = {index: layers[index - 1].output_bytes for index in segment.outputs}
    described = {
        "parameters": sum(layer.parameters for layer in mine),
        "forward": sum(layer.forward_flops for layer in mine),
        "saved": saved_bytes(flow, first, last),
        "outputs": {} if segment.is_loss else sizes,
        "gradients": {b: layers[b - 1].output_bytes for b in segment.differentiable},
    }
    real = {
        "parameters": flat.values.numel(),
        "forward": forward.get_total_flops(),
        "saved": saved.nbytes,
        "outputs": {} if segment.is_loss else {b: x.nbytes for b, x in outputs.items()},
        "gradients": {b: x.nbytes for b, x in gradients.items()},
    }
    into_input = sum(layer.backward_input_flops for layer in mine)
    into_weight = sum(layer.backward_weight_flops for layer in mine)
    if not split:
        described["backward"] = into_input + into_weight
        real["backward"] = backward.get_total_flops()
        return described, real
    described["backward"] = (into_input, into_weight)
    described["deferred"] = deferred_bytes(flow, first, last)
    real["deferred"] = graph.deferred.nbytes(excluding=[*inputs.values(), *outputs.values()])
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as weight:
        graph.deferred.run()
    real["backward"] = (backward.get_total_flops(), weight.get_total_flops())
    return described, real


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("keys", CASES, ids=name_of)
def test_every_part_and_every_piece_is_as_described(experiment, keys, split):
    tiny = experiment(**{**SHAPE, **keys})
    layers, mesh = describe(tiny), mesh_of(tiny)
    pieces, _ = cut(layers, (0, len(layers)), 8, lambda spread: float("inf"))
    single = [(i, i + 1) for i, layer in enumerate(layers) if layer.differentiable]
    for rank in {0, mesh.world_size - 1}:
        for first, last in dict.fromkeys([*pieces, *single]):
            if layers[first].exchange is None:
                described, real = one_pass(tiny, first, last, mesh.coordinate(rank), split)
                assert real == described, f"rank {rank}, {layers[first].kind} ({first} to {last})"


@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp64"])
def test_ranks_of_a_ring_have_equal_work_with_a_causal_mask(experiment, dtype):
    """Whatever keys a step brings, FLOPs and bytes are those that are described for all."""
    tiny = experiment(model="gpt", context=4, dtype=dtype, **SHAPE)
    layers, mesh = describe(tiny), mesh_of(tiny)
    blocks = [i for i, layer in enumerate(layers) if "ring-block" in layer.kind]
    assert len(blocks) == 4
    for index in blocks:
        for rank in range(4):
            described, real = one_pass(tiny, index, index + 1, mesh.coordinate(rank), False)
            assert real == described, f"rank {rank}, {layers[index].kind}"

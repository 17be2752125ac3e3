"""Every segment between two exchanges is what `simulator.workloads` says it is."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from one_pass import IN_PLACE, random_boundary, shapes_of
from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.ledger import SavedBytes
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment
from simulator.strategies.lowering import lower
from simulator.strategies.stages.dataflow import Flow, deferred_bytes, saved_bytes
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
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
        {"model": "gpt", "tensor": 2, "attention": "flash", "dtype": "fp64"},
        {"model": "bert", "tensor": 4, "sequence_parallel": True, "attention": "flash"},
        {"model": "moe-gpt", "expert": 2, "tensor": 2, "attention": "flash"},
        {"model": "moe-gpt", "expert": 2, "tensor": 2, "recompute": "full"},
    ]
)
PLANS += [
    {"model": "llama", **plan}
    for plan in (
        {"tensor": 2, "kv_heads": 2, "sequence_parallel": True, "bias": "all", "dtype": "fp64"},
        {"tensor": 2, "attention": "flash", "bias": "qkv"},
        {"tensor": 4, "kv_heads": 2, "sequence_parallel": True, "bias": "qkv"},
        {"tensor": 4, "kv_heads": 1, "attention": "flash", "dtype": "fp64"},
        {"tensor": 4, "kv_heads": 2, "recompute": "selective", "head_dim": 6, "global_batch": 1},
        {"tensor": 2, "kv_heads": 1, "recompute": "full"},
        {"tensor": 2, "kv_heads": 2, "qk_norm": True, "sequence_parallel": True, "bias": "all"},
        {"tensor": 4, "kv_heads": 2, "qk_norm": True, "attention": "flash"},
        {"tensor": 2, "context": 2, "kv_heads": 1, "qk_norm": True, "dtype": "fp64"},
        {"context": 2, "kv_heads": 1, "qk_norm": True, "context_style": "ulysses", "window": 3},
        {"context": 2, "kv_heads": 2, "bias": "all", "dtype": "fp64"},
        {"context": 4, "kv_heads": 1, "tensor": 2, "heads": 8, "sequence_parallel": True},
        {"context": 2, "kv_heads": 2, "recompute": "selective"},
        {"context": 2, "kv_heads": 2, "context_style": "ulysses", "dtype": "fp64"},
        {"context": 4, "kv_heads": 2, "context_style": "ulysses", "bias": "all"},
        {"context": 2, "kv_heads": 1, "tensor": 2, "context_style": "ulysses"}
        | {"recompute": "selective", "sequence_parallel": True},
    )
]
SPLIT_SEQUENCES = [
    {"model": model, "context": context, "context_style": style, "dtype": dtype, **more}
    for model, dtype in (("gpt", "fp64"), ("bert", "fp32"))
    for context in (2, 4)
    for style in ("ring", "ulysses")
    for more in (
        {},
        {"heads": 8, "tensor": 2, "sequence_parallel": True},
        {"heads": 4, "hidden": 8, "global_batch": 1},
    )
] + [{"model": model, "context": 2, "heads": 1} for model in ("gpt", "bert")]
SPLIT_SEQUENCES += [
    {"model": model, "context": 2, "context_style": style, "dtype": dtype}
    | {"recompute": "selective", **more}
    for model, dtype, more in (
        ("gpt", "fp64", {}),
        ("bert", "fp32", {"tensor": 2}),
        ("gpt", "fp32", {"context": 4}),
    )
    for style in ("ring", "ulysses")
]


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items())


def sizes(tensors):
    return {index: (tuple(tensor.shape), tensor.nbytes) for index, tensor in tensors.items()}


def one_pass(experiment, rank, span, split):
    """(description, what really was) of forward and backward through the layers of `span`."""
    layers, (first, last) = describe(experiment), span
    flow = Flow(layers)
    segment = Segment(experiment, first, last, CPU, experiment.mesh.coordinate(rank))
    Parameters(experiment, [segment])  # gradients go into a flat buffer
    batch, target = microbatch(experiment, 0, 0, CPU)
    inputs = {index: random_boundary(experiment, index) for index in segment.inputs}
    excluded = [*inputs.values(), *segment.parameters(), *segment.buffers()]
    with FlopCounterMode(display=False) as forward, SavedBytes(excluded) as saved:
        outputs, graph = forward_pass(
            segment, {0: batch, **inputs}, target, 1.0, split, inputs.__getitem__
        )
    if segment.losses:
        outputs = {}
    saved.exclude(outputs.values())
    gradients = {
        index: random_boundary(experiment, index) for index in graph.roots if index in outputs
    }
    with FlopCounterMode(display=False) as backward:
        given = backward_pass(graph, gradients)
    mine = layers[first:last]
    described = {
        "parameters": [shape for layer in mine for shape in layer.shapes],
        "forward": sum(layer.forward_flops for layer in mine),
        "backward": sum(layer.backward_input_flops + layer.recomputed_flops for layer in mine),
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
        "parameters": shapes_of(segment),
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
        real["deferred"] = graph.deferred.nbytes([*inputs.values(), *outputs.values()])
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as weights:
            graph.deferred.run()
        real["weights"] = weights.get_total_flops()
    return described, real


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("keys", PLANS + SPLIT_SEQUENCES, ids=name_of)
def test_every_segment_is_as_described(experiment, keys, split):
    tiny = experiment(**{"layers": 2, "hidden": 16, "heads": 4, "ffn_hidden": 24, **keys})
    spans = {i.task.layers for i in lower(tiny).ranks[1] if i.task.op == "F"}
    assert len(spans) > 3
    for span in sorted(spans):
        described, real = one_pass(tiny, 1, span, split)
        assert real == described, [layer.kind for layer in describe(tiny)[slice(*span)]]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("style", ["ring", "ulysses"])
def test_every_part_of_split_attention_is_as_described(experiment, style, split):
    tiny = experiment(layers=1, hidden=16, heads=8, tensor=2, context=4, context_style=style)
    for index, layer in enumerate(describe(tiny)):
        if layer.exchange is None and layer.whole[0] == 1:
            described, real = one_pass(tiny, 1, (index, index + 1), split)
            assert real == described, layer.kind


@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp64"])
def test_ranks_of_a_ring_have_equal_work_with_a_causal_mask(experiment, dtype):
    """Whatever keys a step brings, FLOPs and bytes are those that are described for all."""
    tiny = experiment(layers=1, hidden=16, heads=4, sequence=16, context=4, dtype=dtype)
    layers = describe(tiny)
    blocks = [index for index, layer in enumerate(layers) if "ring-block" in layer.kind]
    assert len(blocks) == 4
    for index in blocks:
        for rank in range(4):
            described, real = one_pass(tiny, rank, (index, index + 1), False)
            assert real == described, f"rank {rank}, {layers[index].kind}"

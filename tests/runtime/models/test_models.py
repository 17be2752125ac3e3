"""The torch modules are what `simulator.workloads` says they are."""

from __future__ import annotations

import math

import pytest
import torch

from one_pass import one_pass
from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.ledger import SavedBytes
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment, boundary, build_layer
from simulator.workloads.describe import describe

CPU = torch.device("cpu")

SHAPES = [
    {"model": "gpt", "layers": 2, "hidden": 16, "heads": 4, "sequence": 8},
    {"model": "gpt", "layers": 1, "hidden": 24, "heads": 1, "sequence": 5, "vocab": 300},
    {"model": "gpt", "layers": 1, "hidden": 12, "heads": 3, "ffn_hidden": 20, "sequence": 16},
    {"model": "gpt", "layers": 2, "hidden": 8, "heads": 8, "sequence": 3, "global_batch": 1},
    {"model": "llama", "layers": 2, "hidden": 16, "heads": 4, "kv_heads": 2, "bias": "all"},
    {"model": "llama", "layers": 1, "heads": 4, "kv_heads": 1, "head_dim": 6, "bias": "qkv"},
    {"model": "llama", "layers": 1, "heads": 2, "sequence": 3, "global_batch": 1},
    {"model": "llama", "layers": 1, "heads": 4, "qk_norm": True, "recompute": "selective"},
    {"model": "llama", "layers": 1, "heads": 4, "kv_heads": 2, "attention": "flash"},
    {"model": "llama", "layers": 1, "qk_norm": True, "attention": "flash", "global_batch": 1},
    {"model": "llama", "layers": 1, "kv_heads": 2, "qk_norm": True, "window": 3},
    {"model": "moe-gpt", "layers": 2, "hidden": 16, "heads": 4, "sequence": 8},
    {"model": "moe-gpt", "layers": 1, "experts": 5, "top_k": 3, "capacity_factor": 0.3},
    {"model": "moe-gpt", "layers": 1, "experts": 3, "top_k": 1, "ffn_hidden": 20, "sequence": 7},
    {"model": "moe-gpt", "layers": 1, "experts": 1, "top_k": 1, "sequence": 1, "global_batch": 1},
    {"model": "moe-gpt", "layers": 1, "top_k": 4, "capacity_factor": 9.0, "hidden": 6},
    {"model": "gpt", "layers": 2, "hidden": 16, "heads": 4, "recompute": "selective"},
    {"model": "gpt", "layers": 1, "heads": 1, "sequence": 3, "recompute": "selective"},
    {"model": "bert", "layers": 2, "hidden": 16, "heads": 4, "recompute": "selective"},
    {"model": "moe-gpt", "layers": 2, "hidden": 16, "heads": 4, "recompute": "selective"},
    {"model": "gpt", "layers": 2, "hidden": 16, "heads": 4, "attention": "flash"},
    {"model": "gpt", "layers": 1, "heads": 1, "sequence": 3, "attention": "flash"},
    {"model": "bert", "layers": 1, "hidden": 16, "heads": 4, "attention": "flash"},
    {"model": "moe-gpt", "layers": 1, "hidden": 16, "heads": 4, "attention": "flash"},
    {"model": "mlp", "layers": 3, "hidden": 16, "sequence": 8},
    {"model": "mlp", "layers": 1, "hidden": 10, "ffn_hidden": 7, "sequence": 1},
    {"model": "mlp", "layers": 2, "hidden": 32, "sequence": 4, "global_batch": 3},
]
SHAPE_AND_TYPE = [
    {**shape, "dtype": ("fp32", "fp64")[number % 2]} for number, shape in enumerate(SHAPES)
]


def name_of(keys):
    return "-".join(str(value) for value in keys.values())


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("keys", SHAPE_AND_TYPE, ids=name_of)
def test_every_layer_and_every_segment_is_as_described(experiment, keys, split):
    tiny = experiment(**keys)
    count = len(describe(tiny))
    for first in range(count):
        for last in range(first + 1, count + 1):
            described, real = one_pass(tiny, first, last, split)
            assert real == described, f"layers {first} to {last}"


@pytest.mark.parametrize("model", ["gpt", "llama", "mlp", "moe-gpt"])
def test_a_split_backward_adds_up_to_the_whole(experiment, model):
    """Input gradient to the bit; weight gradients accumulate, and only when told to."""
    tiny = experiment(model=model, layers=2)
    last = len(describe(tiny))
    shape, dtype = boundary(tiny, 1)
    torch.manual_seed(0)
    x, target = torch.randn(shape, dtype=dtype), microbatch(tiny, 0, 0, CPU)[1]
    gradients = []
    for split in (False, True):
        segment = Segment(tiny, 1, last, CPU)
        flat = Parameters(tiny, [segment])
        for _ in range(2):
            graph = forward_pass(segment, {1: x.clone()}, target, 1.0, split)[1]
            into_input = backward_pass(graph, {})[1]
            weights = [p.grad for p in segment.parameters() if p.dim() > 1]
            if split:
                before = [weight.clone() for weight in weights]
                graph.deferred.run()
                assert not any(map(torch.equal, before, weights))
        gradients.append((into_input, flat.gradients))
    (whole_input, whole), (split_input, parts) = gradients
    assert torch.equal(whole_input, split_input)
    assert float((whole - parts).abs().max()) <= 1e-14 * float(whole.abs().max())


@pytest.mark.parametrize("keys", SHAPES, ids=name_of)
def test_layers_of_one_kind_are_one_work(experiment, keys):
    """A profile is looked up by kind: equal kinds must mean equal modules."""
    tiny = experiment(**keys)
    seen = {}
    for index, layer in enumerate(describe(tiny)):
        module = build_layer(tiny, index, CPU)
        shapes = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
        assert seen.setdefault(layer.kind, (layer, type(module), shapes)) == (
            # a block that cannot begin a stage computes the same
            seen[layer.kind][0],
            type(module),
            shapes,
        )


def test_a_layer_is_initialised_the_same_in_every_partition(experiment):
    tiny = experiment(layers=2)
    whole = Parameters(tiny, [Segment(tiny, 0, 6, CPU)])
    parts = [Segment(tiny, *layers, CPU) for layers in ((0, 1), (1, 3), (3, 6))]
    assert torch.equal(whole.values, Parameters(tiny, parts).values)
    another = experiment(layers=2, seed=1)
    other = Parameters(another, [Segment(another, 0, 6, CPU)])
    assert not torch.equal(whole.values, other.values)


def test_building_leaves_the_random_state_alone(experiment):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Segment(experiment(), 0, 3, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_flat_buffers_are_the_parameters(experiment):
    """What a collective reduces and the optimizer writes is what the layers compute with."""
    segment = Segment(experiment(layers=1), 1, 4, CPU)
    flat = Parameters(experiment(layers=1), [segment])
    flat.values.fill_(0.5)
    flat.gradients.fill_(0.25)
    for parameter in segment.parameters():
        assert torch.all(parameter == 0.5)
        assert torch.all(parameter.grad == 0.25)
    assert sum(p.numel() for p in segment.parameters()) == flat.values.numel()


def test_attention_is_causal_and_attends(experiment):
    """The explicit attention equals torch's own with a causal mask."""
    tiny = experiment(layers=1, hidden=16, heads=4, sequence=8)
    attention = build_layer(tiny, 1, CPU)
    torch.manual_seed(0)
    x = torch.randn(3, 8, 16, dtype=torch.float64)
    q, k, v = (
        part.view(3, 8, 4, 4).transpose(1, 2)
        for part in attention.qkv(attention.norm(x)).split(16, dim=2)
    )
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = x + attention.projection(mixed.transpose(1, 2).reshape(3, 8, 16))
    torch.testing.assert_close(attention(x), expected, rtol=1e-12, atol=1e-12)
    changed = x.clone()
    changed[:, 5] += 1.0
    difference = (attention(changed) - attention(x)).abs().amax(dim=(0, 2))
    assert torch.all(difference[:5] == 0)
    assert torch.all(difference[5:] > 0)


def test_the_untrained_loss_is_that_of_guessing(experiment):
    """ln(vocab) for gpt to within its initialisation; data and targets reach the loss."""
    tiny = experiment(layers=1, vocab=256)
    batch, target = microbatch(tiny, 0, 0, CPU)
    outputs, _ = forward_pass(Segment(tiny, 0, 4, CPU), {0: batch}, target, 1.0)
    assert float(outputs[4]) == pytest.approx(math.log(256), rel=0.1)


def test_saved_bytes_counts_a_storage_once_and_not_what_is_excluded():
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(4, 4)
    with SavedBytes([weight, x]) as saved:
        y = torch.tanh(x @ weight)  # keeps its output
        (y * y.view(16).view(4, 4)).sum()  # keeps y again, under another shape
    assert saved.nbytes == y.nbytes


def test_gpt_target_is_the_byte_that_follows(experiment):
    x, target = microbatch(experiment(), 3, 2, CPU)
    assert torch.equal(x[:, 1:], target[:, :-1])
    assert x.shape == target.shape == (4, 8)
    assert int(x.max()) < 256


def test_data_depend_on_seed_step_and_index_and_on_nothing_else(experiment):
    tiny = experiment(global_batch=8, microbatches=2)
    first = microbatch(tiny, 1, 1, CPU)[0]
    split = experiment(global_batch=8, microbatches=1, data=2, pipeline=2)
    assert torch.equal(first, microbatch(split, 1, 1, CPU)[0])
    for other in (
        microbatch(tiny, 2, 1, CPU),
        microbatch(tiny, 1, 0, CPU),
        microbatch(experiment(global_batch=8, microbatches=2, seed=1), 1, 1, CPU),
    ):
        assert not torch.equal(first, other[0])

"""Losses of 16-bit models are computed in fp32, in one place or spread over ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.ledger import SavedBytes
from runtime.models.batches import microbatch
from runtime.models.segment import Segment, boundary
from runtime.models.share import Share
from runtime.models.vocabulary import CrossEntropy, Exponentials, Maximum
from simulator.strategies.stages.dataflow import Flow, saved_bytes
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
PLANS = [
    {"model": "gpt"},
    {"model": "gpt", "tensor": 2},
    {"model": "gpt", "context": 2},
    {"model": "bert"},
    {"model": "bert", "tensor": 2, "context": 2},
    {"model": "mlp"},
    {"model": "mlp", "tensor": 2, "tensor_style": "column"},
    {"model": "mlp", "tensor": 2},
]
ENDS = ("head", "logits", "maximum", "exponentials", "entropy", "loss", "error")


def name_of(keys):
    return ",".join(str(value) for value in keys.values())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_what_a_loss_keeps_and_hands_on_is_as_described(experiment, keys, dtype):
    tiny = experiment(**{"layers": 1, "hidden": 16, "dtype": dtype, **keys})
    layers, seen = describe(tiny), 0
    for index, layer in enumerate(layers):
        if not any(end in layer.kind for end in ENDS):
            continue
        seen += 1
        segment = Segment(tiny, index, index + 1, CPU, tiny.mesh.coordinate(0))
        for module in segment.modules():
            if isinstance(module, nn.LayerNorm):
                module.float()  # statistics in fp32, as GPUs keep them whatever the weights are
        batch, target = microbatch(tiny, 0, 0, CPU)
        given = {b: torch.randn(boundary(tiny, b)[0]) for b in segment.inputs}
        given = {b: tensor.to(boundary(tiny, b)[1]) for b, tensor in given.items()}
        with SavedBytes([*given.values(), *segment.parameters(), *segment.buffers()]) as saved:
            outputs, graph = forward_pass(segment, {0: batch, **given}, target, 1.0)
        if not segment.losses:
            saved.exclude(outputs.values())
            assert outputs[index + 1].nbytes == layer.output_bytes
        assert saved.nbytes == saved_bytes(Flow(layers), index, index + 1), layer.kind
        gradients = {b: torch.ones_like(outputs[b]) for b in graph.roots if not segment.losses}
        for b, gradient in backward_pass(graph, gradients).items():
            assert gradient.dtype == boundary(tiny, b)[1]
    assert seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_a_vocabulary_on_two_ranks_are_those_in_fp32(experiment, dtype):
    tiny = experiment(model="gpt", tensor=2, vocab=4096, dtype="bf16")
    torch.manual_seed(0)
    logits = torch.randn(32, 4096).to(dtype).requires_grad_()
    target = torch.randint(4096, (4, 8))
    shares = [Share(tiny, {"tensor": rank}) for rank in range(2)]
    parts = logits.chunk(2, 1)
    maximum = torch.stack([Maximum()(part) for part in parts]).amax(0)
    sums = [
        Exponentials(share)(maximum, part, target)
        for share, part in zip(shares, parts, strict=True)
    ]
    loss = CrossEntropy(shares[0])(sums[0] + sums[1], target)
    exact = logits.detach().double().requires_grad_()
    expected = functional.cross_entropy(exact, target.flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (found,) = torch.autograd.grad(loss * 65536.0, logits)
    (gradient,) = torch.autograd.grad(expected * 65536.0, exact)
    assert (found - gradient).abs().max() <= torch.finfo(dtype).eps * gradient.abs().max()


@pytest.mark.parametrize(
    "keys",
    [
        {"model": "mlp", "layers": 1, "sequence": 2},
        {"model": "mlp", "tensor": 2, "tensor_style": "column"},
    ],
    ids=name_of,
)
def test_the_default_loss_scale_trains_from_the_first_step(run, keys):
    """With one microbatch: 65536 is no number of fp16, its share of the mean is one."""
    keys = {"iterations": 4, "microbatches": 1, "optimizer": "adam", "learning_rate": 0.01, **keys}
    exact, scaled = run(**keys), run(**keys, dtype="fp16")
    assert scaled.experiment.workload.loss_scale == 65536.0
    assert scaled.measurement.loss_scale == {"value": 65536.0, "skipped_steps": 0}
    assert scaled.measurement.losses == pytest.approx(exact.measurement.losses, rel=0.003)

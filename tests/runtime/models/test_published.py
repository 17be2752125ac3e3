"""AlexNet, VGG16, ResNet-50 and BERT: described as they are, equal to plain torch, and the
same in one piece and in several."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from one_pass import one_pass
from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment, build_layer
from simulator.experiment_file import parse
from simulator.workloads import alexnet, resnet50, vgg16
from simulator.workloads.describe import describe

CPU = torch.device("cpu")

TINY = {
    "alexnet": {"image_size": 63, "classes": 5, "global_batch": 4},
    "vgg16": {"image_size": 32, "classes": 5, "global_batch": 4},
    "resnet50": {"image_size": 40, "classes": 5, "global_batch": 4},
    "bert": {"layers": 2, "hidden": 16, "heads": 4, "sequence": 9, "global_batch": 4},
}


def tiny(model, dtype="fp64", seed=0, **keys):
    workload = {"model": model, "dtype": dtype, **TINY[model], **keys}
    return parse({"workload": workload, "parallel": {"microbatches": 2}, "run": {"seed": seed}})


GROUPS = ((8, 2), (16, 1), (24, 2))
CHANNELS = ((6, 6), (8, 8), (10, 10, 10), (12, 12, 12), (16, 16, 16))
HIDDEN = (24, 16)


@pytest.fixture
def narrow(monkeypatch):
    """The published widths, and all blocks of ResNet, make everything slow."""
    for module in (alexnet, vgg16):
        monkeypatch.setattr(module, "HIDDEN", HIDDEN)
    monkeypatch.setattr(vgg16, "BLOCKS", vgg16.blocks_of(CHANNELS))
    monkeypatch.setattr(resnet50, "BOTTLENECKS", resnet50.bottlenecks_of(GROUPS))


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("model", TINY)
def test_every_layer_and_segments_of_them_are_as_described(narrow, model, dtype, split):
    experiment = tiny(model, dtype)
    count = len(describe(experiment))
    pieces = [(index, index + 1) for index in range(count)]
    pieces += [(0, count), (0, count // 2), (count // 2, count), (1, count - 1), (count - 3, count)]
    for first, last in pieces:
        described, real = one_pass(experiment, first, last, split)
        assert real == described, f"layers {first} to {last}"


@pytest.mark.parametrize("model", ["alexnet", "vgg16", "resnet50"])
def test_every_layer_of_the_published_widths_is_as_described(model):
    experiment = tiny(model, "fp32", global_batch=2)
    for index in range(len(describe(experiment))):
        described, real = one_pass(experiment, index, index + 1, True)
        assert real == described, f"layer {index}"


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("model", ["alexnet", "vgg16", "resnet50"])
def test_the_loss_of_16_bit_logits_is_as_described(narrow, model, dtype, split):
    experiment = tiny(model, dtype)
    last = len(describe(experiment))
    described, real = one_pass(experiment, last - 1, last, split)
    assert real == described


@pytest.mark.parametrize("model", TINY)
def test_layers_of_one_kind_are_one_work(narrow, model):
    experiment = tiny(model)
    seen = {}
    for index, layer in enumerate(describe(experiment)):
        module = build_layer(experiment, index, CPU)
        shapes = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
        work = (layer.flops, layer.moved_bytes, layer.saved_bytes, type(module), shapes)
        assert seen.setdefault(layer.kind, work) == work


def run_pieces(experiment, cuts, split):
    """Gradients of all layers and the losses after both microbatches of step 0."""
    segments = [Segment(experiment, *piece, CPU) for piece in pairwise(cuts)]
    flat = Parameters(experiment, segments)
    left, losses = [], []
    for index in range(2):
        x, target = microbatch(experiment, 0, index, CPU)
        graphs = []
        for segment in segments:
            outputs, graph = forward_pass(segment, {segment.first: x}, target, 0.5, split)
            x = outputs[segment.last]
            graphs.append(graph)
        losses.append(x)
        gradient = None
        for segment, graph in zip(reversed(segments), reversed(graphs), strict=True):
            gradient = backward_pass(graph, {segment.last: gradient}).get(segment.first)
            left.append(graph.deferred)
    for deferred in left:
        if deferred:
            deferred.run()
    return flat.gradients, torch.stack(losses)


def run_plain(experiment):
    """The same of one autograd graph over the layers, without segments."""
    layers = [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
    losses = []
    for index in range(2):
        x, target = microbatch(experiment, 0, index, CPU)
        for layer in layers[:-1]:
            x = layer(x)
        loss = layers[-1](x, target)
        (loss * 0.5).backward()
        losses.append(loss.detach())
    parameters = [p for layer in layers for p in layer.parameters()]
    assert all(bool(p.grad.abs().max() > 0) for p in parameters)
    return torch.cat([p.grad.flatten() for p in parameters]), torch.stack(losses)


@pytest.mark.parametrize("model", TINY)
def test_whole_or_cut_not_a_bit_is_different(narrow, model):
    experiment = tiny(model)
    count = len(describe(experiment))
    plain, losses = run_plain(experiment)
    for cuts in ([0, count], [0, 1, 4, count - 1, count], list(range(count + 1))):
        gradients, found = run_pieces(experiment, cuts, split=False)
        assert torch.equal(gradients, plain)
        assert torch.equal(found, losses)


@pytest.mark.parametrize("model", TINY)
def test_a_split_backward_adds_up_to_the_whole(narrow, model):
    experiment = tiny(model)
    count = len(describe(experiment))
    plain, losses = run_plain(experiment)
    for cuts in ([0, count], [0, 2, 3, count]):
        gradients, found = run_pieces(experiment, cuts, split=True)
        assert torch.equal(found, losses)
        assert float((gradients - plain).abs().max()) <= 1e-14 * float(plain.abs().max())


def conv_sequence(channels, kernels, pools):
    """Convolutions with the (stride, padding) of `kernels`, ReLU, pools after some."""
    modules = []
    for number, ((inputs, outputs), (kernel, stride, padding)) in enumerate(
        zip(channels, kernels, strict=True)
    ):
        modules += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True)]
        if number in pools:
            modules.append(nn.MaxPool2d(pools[number], 2))
    return modules


def perceptron(sizes):
    modules = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        modules += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return modules[:-1]


def plain_alexnet():
    channels = [(3, 64), (64, 192), (192, 384), (384, 256), (256, 256)]
    kernels = [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    convolutions = conv_sequence(channels, kernels, {0: 3, 1: 3, 4: 3})
    return nn.Sequential(*convolutions, *perceptron([256, 24, 16, 5]))


def plain_vgg16():
    widths = [3, 6, 6, 8, 8, 10, 10, 10, 12, 12, 12, 16, 16, 16]
    channels = list(pairwise(widths))
    pools = dict.fromkeys((1, 3, 6, 9, 12), 2)
    convolutions = conv_sequence(channels, [(3, 1, 1)] * 13, pools)
    return nn.Sequential(*convolutions, *perceptron([16, 24, 16, 5]))


class PlainBottleneck(nn.Module):
    def __init__(self, inputs, inner, stride):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, 4 * inner, 1, bias=False),
            nn.BatchNorm2d(4 * inner),
        )
        self.skip = nn.Identity()
        if inputs != 4 * inner:
            convolution = nn.Conv2d(inputs, 4 * inner, 1, stride, bias=False)
            self.skip = nn.Sequential(convolution, nn.BatchNorm2d(4 * inner))

    def forward(self, x):
        return functional.relu(self.main(x) + self.skip(x))


def plain_resnet50():
    blocks, inputs = [], 64
    for inner, count, stride in ((8, 2, 1), (16, 1, 2), (24, 2, 2)):
        for number in range(count):
            blocks.append(PlainBottleneck(inputs, inner, 1 if number else stride))
            inputs = 4 * inner
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    pools = nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*stem, pools[0], *blocks, pools[1], nn.Flatten(), nn.Linear(96, 5))


PLAIN = {"alexnet": plain_alexnet, "vgg16": plain_vgg16, "resnet50": plain_resnet50}


@pytest.mark.parametrize("model", PLAIN)
def test_the_image_models_compute_what_plain_torch_does(narrow, model):
    """Written down a second time from the papers, with torch's own modules."""
    experiment = tiny(model)
    network = PLAIN[model]().double().train()
    segment = Segment(experiment, 0, len(describe(experiment)), CPU)
    Parameters(experiment, [segment])
    for theirs, ours in zip(network.parameters(), segment.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    x, target = microbatch(experiment, 0, 0, CPU)
    loss = functional.cross_entropy(network(x), target)
    loss.backward()
    found, graph = forward_pass(segment, {0: x}, target, 1.0)
    backward_pass(graph, {})
    torch.testing.assert_close(found[segment.last], loss.detach(), rtol=1e-12, atol=0)
    for theirs, ours in zip(network.parameters(), segment.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        assert float((theirs.grad - ours.grad).abs().max()) <= 1e-11 * scale

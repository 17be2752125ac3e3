"""Llama computes what its papers say, written down a second time with torch's own operators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from runtime.executor.graph import backward_pass, forward_pass
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
TINY = {"model": "llama", "layers": 2, "hidden": 16, "heads": 4, "sequence": 12, "dtype": "fp64"}


def scaled(w, frequency):
    """Llama 3.1's rule, with its conditions as they are written there."""
    if w.rope_scaling == "none":
        return frequency
    wavelength = 2 * math.pi / frequency
    if w.rope_scaling == "linear" or wavelength > w.rope_original / 1:
        return frequency / w.rope_factor
    if wavelength < w.rope_original / 4:
        return frequency
    smooth = (w.rope_original / wavelength - 1) / (4 - 1)
    return (1 - smooth) * frequency / w.rope_factor + smooth * frequency


class PlainBlock(nn.Module):
    """A block with separate matrices, rotations of complex numbers, keys and values repeated."""

    def __init__(self, w, number):
        super().__init__()
        self.w, self.full = w, w.full_attention_every and (number + 1) % w.full_attention_every == 0
        self.head_norms = nn.ModuleList(nn.RMSNorm(w.head_dim or 4, eps=1e-5) for _ in range(2))
        self.heads, self.kv_heads = w.heads, w.kv_heads or w.heads
        self.head = w.head_dim or w.hidden // w.heads
        self.theta = w.rope_theta
        qkv, every = w.bias != "none", w.bias == "all"
        self.norms = nn.ModuleList(nn.RMSNorm(w.hidden, eps=1e-5) for _ in range(2))
        kv = self.kv_heads * self.head
        self.q = nn.Linear(w.hidden, self.heads * self.head, bias=qkv)
        self.k, self.v = nn.Linear(w.hidden, kv, bias=qkv), nn.Linear(w.hidden, kv, bias=qkv)
        self.o = nn.Linear(self.heads * self.head, w.hidden, bias=every)
        self.gate, self.up = (nn.Linear(w.hidden, w.ffn, bias=every) for _ in range(2))
        self.down = nn.Linear(w.ffn, w.hidden, bias=every)

    def activation(self, x):
        if self.w.activation == "silu":
            return x / (1 + (-x).exp())
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def turned(self, x):
        """Multiply pairs (i, i + head ÷ 2), as complex numbers, by e^(i · angle)."""
        first, second = x.chunk(2, dim=-1)
        power = torch.arange(self.head // 2, dtype=torch.float64) * (2 / self.head)
        frequencies = [scaled(self.w, frequency) for frequency in (self.theta**-power).tolist()]
        positions = torch.arange(x.shape[2], dtype=torch.float64)
        angles = positions.outer(torch.tensor(frequencies, dtype=torch.float64))
        made = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([made.real, made.imag], dim=-1)

    def forward(self, x):
        def parted(y):
            return y.unflatten(2, (-1, self.head)).transpose(1, 2)

        n = self.norms[0](x)
        q, k, v = parted(self.q(n)), parted(self.k(n)), parted(self.v(n))
        if self.w.qk_norm:
            q, k = self.head_norms[0](q), self.head_norms[1](k)
        q, k = self.turned(q), self.turned(k)
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head)
        row, column = torch.arange(x.shape[1]).unsqueeze(1), torch.arange(x.shape[1])
        hidden = column > row
        if self.w.window and not self.full:
            hidden |= row - column >= self.w.window
        mixed = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        n = self.norms[1](x)
        return x + self.down(self.activation(self.gate(n)) * self.up(n))


def plain(w):
    return nn.Sequential(
        nn.Embedding(w.vocab, w.hidden),
        *(PlainBlock(w, number) for number in range(w.layers)),
        nn.RMSNorm(w.hidden, eps=1e-5),
        nn.Linear(w.hidden, w.vocab, bias=False),
    ).double()


def matrices(network):
    """Parameters of the plain network in the order of ours, those of one product together."""
    for module in network:
        if not isinstance(module, PlainBlock):
            yield [module.weight]
            continue
        for norm, *products in (
            (module.norms[0], (module.q, module.k, module.v), (module.o,)),
            (module.norms[1], (module.gate, module.up), (module.down,)),
        ):
            yield [norm.weight]
            for product in products:
                yield [linear.weight for linear in product]
                if product[0].bias is not None:
                    yield [linear.bias for linear in product]
            if module.w.qk_norm and norm is module.norms[0]:
                yield from ([head_norm.weight] for head_norm in module.head_norms)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"kv_heads": 2, "ffn_hidden": 20, "rope_theta": 5e5},
        {"kv_heads": 1, "head_dim": 6, "bias": "qkv"},
        {"kv_heads": 2, "bias": "all", "attention": "flash"},
        {"kv_heads": 2, "recompute": "selective", "qk_norm": True, "activation": "gelu"},
        {"kv_heads": 2, "window": 5, "full_attention_every": 2, "qk_norm": True},
        {"window": 4, "attention": "flash", "rope_scaling": "linear", "rope_factor": 3.0},
        {"head_dim": 8, "rope_scaling": "llama3", "rope_theta": 4.0, "rope_original": 32},
    ],
    ids=lambda keys: ",".join(map(str, keys.values())),
)
def test_it_is_the_model_of_the_papers(experiment, keys):
    tiny = experiment(**{**TINY, **keys})
    network = plain(tiny.workload)
    segment = Segment(tiny, 0, len(describe(tiny)), CPU)
    Parameters(tiny, [segment])
    ours = list(segment.parameters())
    for theirs, mine in zip(matrices(network), ours, strict=True):
        sizes = [len(part) for part in theirs]
        for part, share in zip(theirs, mine.data.split(sizes), strict=True):
            part.data.copy_(share)
    x, target = microbatch(tiny, 0, 0, CPU)
    loss = functional.cross_entropy(network(x).flatten(0, 1), target.flatten())
    loss.backward()
    found, graph = forward_pass(segment, {0: x}, target, 1.0)
    backward_pass(graph, {})
    torch.testing.assert_close(found[segment.last], loss.detach(), rtol=1e-12, atol=0)
    for theirs, mine in zip(matrices(network), ours, strict=True):
        expected = torch.cat([part.grad for part in theirs])
        assert float(expected.abs().max()) > 0
        torch.testing.assert_close(mine.grad, expected, rtol=1e-9, atol=1e-14)

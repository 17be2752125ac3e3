"""The mixture of experts against a loop over tokens, and who gets a slot."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from runtime.models.deferral import BatchedLinear
from runtime.models.moe_gpt import Dispatch, Mixture, Router, assign, combine
from runtime.models.segment import build_layer

CPU = torch.device("cpu")


def by_hand(mixture: Mixture, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(output, choices dropped), one token and one choice at a time."""
    rows, top_k = mixture.norm(x).flatten(0, -2), mixture.router.top_k
    scores = rows @ mixture.router.scores.weight.t()
    best = scores.topk(top_k)
    gates = best.values.softmax(1) if top_k > 1 else scores.softmax(1).amax(1, keepdim=True)
    taken = [0] * scores.shape[1]
    out, dropped = x.clone().flatten(0, -2), 0
    fc1, fc2 = mixture.experts.fc1, mixture.experts.fc2
    for choice in range(top_k):
        for token, row in enumerate(rows):
            expert = int(best.indices[token, choice])
            if taken[expert] == mixture.dispatch.slots_each:
                dropped += 1
                continue
            taken[expert] += 1
            inner = functional.gelu(row @ fc1.weight[expert] + fc1.bias[expert])
            answer = inner @ fc2.weight[expert] + fc2.bias[expert]
            out[token] = out[token] + gates[token, choice] * answer
    return out.view_as(x), dropped


@pytest.mark.parametrize(
    ("experts", "top_k", "factor"), [(4, 2, 0.7), (4, 1, 0.5), (3, 3, 9.0), (5, 3, 0.01), (1, 1, 1)]
)
def test_a_mixture_is_the_loop_over_its_tokens(experiment, experts, top_k, factor):
    tiny = experiment(
        model="moe-gpt", experts=experts, top_k=top_k, capacity_factor=factor, hidden=6
    )
    mixture = build_layer(tiny, 2, CPU)
    torch.manual_seed(1)
    x = torch.randn(4, 8, 6, dtype=torch.float64)
    expected, dropped = by_hand(mixture, x)
    gradients = []
    for output in (mixture(x), expected):
        found = torch.autograd.grad(output.square().sum(), list(mixture.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    torch.testing.assert_close(mixture(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)
    mixture.dispatch.counter.restart()
    mixture(x)
    assert int(mixture.dispatch.counter.dropped) == dropped
    assert (dropped > 0) == (factor < 1)


def test_first_choices_come_before_second_ones():
    """Two slots each. Token 0 has the best gate for expert 1, but as its second choice."""
    gates = torch.tensor([[0.51, 0.49, 0], [0.2, 0.3, 0], [0.1, 0.3, 0], [0, 0.1, 0.3]])
    entry, slot, load = assign(gates, 2, 2)
    assert entry.tolist() == [0, 4, 7, 11, 1, 3, 6, 10]  # 3 × token + expert
    assert slot.tolist() == [0, 2, 3, 4, 6, 1, 6, 6]  # 6: none left
    assert load.tolist() == [3, 4, 1]


@st.composite
def routings(draw):
    """(gates, top_k, slots of an expert) as a router makes them, ties and all."""
    experts, tokens = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    top_k, hidden = draw(st.integers(1, experts)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    torch.manual_seed(draw(st.integers(0, 99)))
    router = Router(hidden, experts, top_k).to(dtype)
    scale = draw(st.sampled_from([0.0, 1.0, 1e4]))
    with torch.no_grad():
        gates = router(torch.randn(tokens, hidden).mul(scale).to(dtype))
    return gates, top_k, draw(st.integers(1, tokens))


@settings(deadline=None)
@given(routings())
def test_who_gets_a_slot(routing):
    gates, top_k, slots_each = routing
    tokens, experts = gates.shape
    assert torch.all((gates > 0).sum(1) == top_k)
    assert torch.all(gates >= 0)
    total = gates.double().sum(1)
    if top_k > 1:
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=0.02)
    entry, slot, load = assign(gates, top_k, slots_each)
    assert sorted(entry.tolist()) == gates.flatten().nonzero().flatten().tolist()
    assert load.tolist() == (gates > 0).sum(0).tolist()
    kept = slot < experts * slots_each
    assert len(slot[kept].unique()) == int(kept.sum())  # no slot twice
    assert torch.equal(slot[kept].div(slots_each, rounding_mode="floor"), entry[kept] % experts)
    taken = torch.bincount(entry[kept] % experts, minlength=experts)
    assert taken.tolist() == load.clamp(max=slots_each).tolist()

    dispatch = Dispatch(experts, top_k, slots_each)
    n = torch.arange(1.0, tokens + 1).unsqueeze(1)
    slots = dispatch(n, gates)
    assert slots.shape == (experts, slots_each, 1)
    assert int((slots > 0).sum()) == int(kept.sum())
    assert int(dispatch.counter.dropped) == tokens * top_k - int(kept.sum())
    assert torch.equal(slots.flatten()[slot[kept]], n.flatten()[entry[kept] // experts])
    exact = gates.double()
    back = combine(torch.ones(experts, slots_each, 1).double(), exact, top_k)
    weights = torch.zeros(tokens * experts).double()
    weights[entry[kept]] = exact.flatten()[entry[kept]]
    torch.testing.assert_close(back.flatten(), weights.view_as(gates).sum(1))


def test_a_batched_linear_is_one_linear_for_each():
    torch.manual_seed(0)
    batched = BatchedLinear(3, 4, 5).double()
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    for part, weight, bias, out in zip(x, batched.weight, batched.bias, batched(x), strict=True):
        torch.testing.assert_close(functional.linear(part, weight.t(), bias), out)
    assert float(batched.weight.detach().abs().max()) <= 4**-0.5

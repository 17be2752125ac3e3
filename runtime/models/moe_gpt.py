"""The modules of `simulator.workloads.moe_gpt`: those of gpt, with a mixture of experts in
the place of its MLP, made of parts that hand tensors to each other and share nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.deferral import BatchedLinear, Linear
from runtime.models import gpt
from simulator.experiment import Experiment
from simulator.workloads.moe_gpt import capacity


class Router(nn.Module):
    """(…, hidden) → gates (tokens, experts): positive for the `top_k` experts that a token
    chooses, and 0 for the others."""

    def __init__(self, hidden: int, experts: int, top_k: int):
        super().__init__()
        self.top_k = top_k
        self.scores = Linear(hidden, experts, bias=False)

    def forward(self, n: Tensor) -> Tensor:
        scores: Tensor = self.scores(n.flatten(0, -2))
        others = torch.ones_like(scores, dtype=torch.bool)
        others.scatter_(1, scores.detach().topk(self.top_k).indices, False)
        if self.top_k > 1:
            scores = scores.masked_fill(others, float("-inf"))
        # What is not 0 tells the choices, so a gate must not underflow.
        gates = scores.softmax(dim=-1).clamp(min=torch.finfo(scores.dtype).tiny)
        return gates.masked_fill(others, 0.0)


@torch.no_grad()
def assign(gates: Tensor, top_k: int, slots_each: int) -> tuple[Tensor, Tensor, Tensor]:
    """Who gets a slot, from nothing but the gates: the same whoever asks.

    First come, first served: the first choices of all tokens in their order, then all second
    choices and so on (Lepikhin et al. 2020, algorithm 1). A token's first choice has its
    largest gate.

    Returns:
        For each choice in that order, (top_k × tokens): its place in the flattened gates,
        and its slot, counted over all experts. A slot behind the last: dropped.
        Then the choices of each expert, (experts,).
    """
    tokens, experts = gates.shape
    ranked = gates.argsort(dim=1, descending=True, stable=True)
    chosen = ranked[:, :top_k].t().flatten()
    by_expert = chosen.argsort(stable=True)
    load = torch.zeros(experts, dtype=torch.int64, device=gates.device)
    load.scatter_add_(0, chosen, torch.ones_like(chosen))
    begin = load.cumsum(0) - load  # where each expert's choices begin in `by_expert`
    turn = torch.empty_like(by_expert)
    turn[by_expert] = torch.arange(len(chosen), device=gates.device) - begin[chosen[by_expert]]
    slot = (chosen * slots_each + turn).masked_fill_(turn >= slots_each, experts * slots_each)
    token = torch.arange(tokens, device=gates.device).repeat(top_k)
    return token * experts + chosen, slot, load


class Dispatch(nn.Module):
    """(n, gates) → what the experts' slots hold, (experts, slots each, hidden); 0 where none
    is taken.

    Attributes:
        load: choices per expert since the last `restart`; dropped: those of all experts that
            got no slot.
        counts: this forward pass is not one that runs again.
    """

    load: Tensor
    dropped: Tensor
    counts = True

    def __init__(self, experts: int, top_k: int, slots_each: int):
        super().__init__()
        self.top_k, self.slots_each = top_k, slots_each
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64), persistent=False)
        self.register_buffer("dropped", torch.zeros((), dtype=torch.int64), persistent=False)

    def restart(self) -> None:
        self.load.zero_()
        self.dropped.zero_()

    def forward(self, n: Tensor, gates: Tensor) -> Tensor:
        rows, experts = n.flatten(0, -2), gates.shape[1]
        entry, slot, load = assign(gates, self.top_k, self.slots_each)
        if self.counts:
            self.load += load
            self.dropped += (load - self.slots_each).clamp_(min=0).sum()
        # One more than there are slots: all that are dropped write there.
        token = slot.new_full((experts * self.slots_each + 1,), -1)
        token[slot] = entry.div(experts, rounding_mode="floor")
        token = token[:-1]
        # Gathered by slot, not scattered by choice: nothing of the size of the choices.
        filled = rows.index_select(0, token.clamp(min=0)).masked_fill_((token < 0).unsqueeze(1), 0)
        return filled.view(experts, self.slots_each, rows.shape[1])


class Experts(nn.Module):
    """(experts, slots, hidden) → the same shape: fc2(GELU(fc1(·))) of each expert."""

    def __init__(self, experts: int, hidden: int, ffn: int):
        super().__init__()
        self.fc1 = BatchedLinear(experts, hidden, ffn)
        self.fc2 = BatchedLinear(experts, ffn, hidden)

    def forward(self, slots: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(slots)))
        return out


def combine(out: Tensor, gates: Tensor, x: Tensor, top_k: int) -> Tensor:
    """x + for each token the sum of gate × the expert's output over the choices with a slot.

    Args:
        out: of the experts, (experts, slots each, hidden).
        gates: as the dispatch had them.
        x: what came into the layer, (…, hidden).
    """
    entry, slot, _ = assign(gates, top_k, out.shape[1])
    rows = out.flatten(0, 1)
    dropped = slot == len(rows)
    weight = gates.flatten().index_select(0, entry).masked_fill(dropped, 0.0)
    picked = rows.index_select(0, slot.masked_fill(dropped, 0))
    weighted = (picked * weight.unsqueeze(1)).view(top_k, -1, rows.shape[1])
    return x + weighted.sum(0).view_as(x)


class Mixture(nn.Module):
    """x + combine(experts(dispatch(norm(x))))."""

    def __init__(self, hidden: int, ffn: int, experts: int, top_k: int, slots_each: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.router = Router(hidden, experts, top_k)
        self.dispatch = Dispatch(experts, top_k, slots_each)
        self.experts = Experts(experts, hidden, ffn)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        gates = self.router(n)
        out = self.experts(self.dispatch(n, gates))
        return combine(out, gates, x, self.router.top_k)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Layer `index` of `simulator.workloads.moe_gpt.layers`, freshly initialised."""
    w = experiment.workload
    if index == 0 or index % 2:
        return gpt.layer(experiment, index)
    return Mixture(w.hidden, w.ffn, w.experts, w.top_k, capacity(experiment))

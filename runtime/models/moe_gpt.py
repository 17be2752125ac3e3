"""The modules of `simulator.workloads.moe_gpt`: those of gpt, with a mixture of experts in
the place of its MLP, made of parts that hand tensors to each other and share nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models import gpt
from runtime.models.deferral import BatchedLinear, Linear
from runtime.models.transformer import Share
from simulator.experiment.experiment import Experiment
from simulator.workloads.moe_gpt import capacity


class Router(nn.Module):
    """(…, hidden) → gates (tokens, experts): positive for the `top_k` experts that a token
    chooses, and 0 for the others.
    """

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


def combine(out: Tensor, gates: Tensor, top_k: int) -> Tensor:
    """For each token the sum of gate × the expert's output over the choices with a slot,
    (tokens, hidden).

    Args:
        out: of the experts, (experts, slots each, hidden).
        gates: as the dispatch had them.
    """
    entry, slot, _ = assign(gates, top_k, out.shape[1])
    rows = out.flatten(0, 1)
    dropped = slot == len(rows)
    weight = gates.flatten().index_select(0, entry).masked_fill(dropped, 0.0)
    picked = rows.index_select(0, slot.masked_fill(dropped, 0))
    weighted = (picked * weight.unsqueeze(1)).view(top_k, -1, rows.shape[1])
    return weighted.sum(0)


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
        return x + combine(out, gates, self.router.top_k).view_as(x)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Layer `index` of `simulator.workloads.moe_gpt.layers`, freshly initialised."""
    w = experiment.workload
    if index == 0 or index % 2:
        return gpt.layer(experiment, index)
    return Mixture(w.hidden, w.ffn, w.experts, w.top_k, capacity(experiment))


class ExpertsPart(nn.Module):
    """This rank's experts, or its share of them: what every rank of the expert axis has in its
    slots for them → a part of the sum over tensor ranks, in the same order, (experts, slots
    each, hidden).

    Each rank has a share of fc1's columns, of fc2's rows and of the bias of fc2's outputs.
    """

    def __init__(self, whole: Experts, over: Share, share: Share):
        super().__init__()
        assert whole.fc1.bias is not None and whole.fc2.bias is not None
        self.ranks = over.count
        self.fc1 = BatchedLinear.of(
            share.of(over.of(whole.fc1.weight), 2), share.of(over.of(whole.fc1.bias), 1)
        )
        self.fc2 = BatchedLinear.of(share.of(over.of(whole.fc2.weight), 1), None)
        self.bias = nn.Parameter(share.of(over.of(whole.fc2.bias), 1))
        before = share.index * self.bias.shape[1]
        self.margins = before, whole.fc2.bias.shape[1] - before - self.bias.shape[1]

    def forward(self, slots: Tensor) -> Tensor:
        _, each, hidden = slots.shape
        from_ranks = slots.view(self.ranks, -1, each, hidden).transpose(0, 1)
        mine = from_ranks.contiguous().view(-1, self.ranks * each, hidden)
        bias = functional.pad(self.bias, self.margins).unsqueeze(1)
        out: Tensor = self.fc2(functional.gelu(self.fc1(mine))).add_(bias)
        return out.view(-1, self.ranks, each, hidden).transpose(0, 1).reshape(slots.shape)


class Combine(nn.Module):
    """(out of the experts, gates) → (batch, sequence, hidden), without the residual."""

    def __init__(self, top_k: int, sequence: int):
        super().__init__()
        self.top_k, self.sequence = top_k, sequence

    def forward(self, out: Tensor, gates: Tensor) -> Tensor:
        return combine(out, gates, self.top_k).view(-1, self.sequence, out.shape[2])


class Residual(nn.Module):
    """Sum."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + x


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, place: Mapping[str, int]
) -> nn.Module:
    """What a rank has of `whole`: see `simulator.workloads.moe_gpt.split_layers`."""
    if not isinstance(whole, Mixture):
        return gpt.shard_module(whole, name, experiment, place)
    if name == "experts":
        over, share = Share(experiment, place, "expert"), Share(experiment, place)
        return ExpertsPart(whole.experts, over, share)
    if name == "combine":
        return Combine(whole.router.top_k, len(Share(experiment, place).places))
    if name == "residual":
        return Residual()
    return {"norm": whole.norm, "router": whole.router, "dispatch": whole.dispatch}[name]

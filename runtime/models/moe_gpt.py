"""The layers of `simulator.workloads.moe_gpt`: gpt with a mixture of experts for its MLP.

A mixture is made of parts that hand tensors to each other and share nothing else, so that
ranks can have different parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models import gpt
from runtime.models.deferral import BatchedLinear, Linear
from runtime.models.expert_counter import ExpertCounter
from runtime.models.share import Share
from simulator.experiment.experiment import Experiment
from simulator.workloads.moe_gpt import capacity


class Router(nn.Module):
    """The gates of each token: (…, hidden) → (tokens, experts).

    A gate is positive for the `top_k` experts that the token chooses, and 0 for the others.
    """

    def __init__(self, hidden: int, experts: int, top_k: int):
        super().__init__()
        self.top_k = top_k
        self.scores = Linear(hidden, experts, bias=False)

    def forward(self, n: Tensor) -> Tensor:
        """Return the gates, (tokens, experts)."""
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
    """Give slots to choices; the result depends on nothing but the gates, whoever asks.

    First come, first served: the first choices of all tokens in their order, then all second
    choices and so on (Lepikhin et al. 2020, algorithm 1). A token's first choice has its
    largest gate.

    Returns:
        Per choice in that order, (top_k × tokens): its index in the flattened gates, and its
        slot, counted over all experts; a slot behind the last one means dropped. Then the
        number of choices per expert, (experts,).
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
    """Fill the experts' slots: (tokens, gates) → (experts, slots each, hidden), 0 where empty."""

    def __init__(self, experts: int, top_k: int, slots_each: int):
        super().__init__()
        self.top_k, self.slots_each = top_k, slots_each
        self.counter = ExpertCounter(experts)

    def forward(self, n: Tensor, gates: Tensor) -> Tensor:
        """Return the slots, (experts, slots each, hidden), of tokens (…, hidden)."""
        rows, experts = n.flatten(0, -2), gates.shape[1]
        entry, slot, load = assign(gates, self.top_k, self.slots_each)
        self.counter.add(load, self.slots_each)
        # One more than there are slots: all that are dropped write there.
        token = slot.new_full((experts * self.slots_each + 1,), -1)
        token[slot] = entry.div(experts, rounding_mode="floor")
        token = token[:-1]
        # Gathered by slot, not scattered by choice: nothing of the size of the choices.
        filled = rows.index_select(0, token.clamp(min=0)).masked_fill_((token < 0).unsqueeze(1), 0)
        return filled.view(experts, self.slots_each, rows.shape[1])


class Experts(nn.Module):
    """The MLP of each expert, fc2(GELU(fc1(·))): (experts, slots, hidden) → the same shape."""

    def __init__(self, experts: int, hidden: int, ffn: int):
        super().__init__()
        self.fc1 = BatchedLinear(experts, hidden, ffn)
        self.fc2 = BatchedLinear(experts, ffn, hidden)

    def forward(self, slots: Tensor) -> Tensor:
        """Map (experts, slots, hidden) to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(slots)))
        return out


def combine(out: Tensor, gates: Tensor, top_k: int) -> Tensor:
    """Return each token's sum of gate × expert's output over its choices that got a slot.

    Args:
        out: outputs of the experts, (experts, slots each, hidden).
        gates: the gates that the dispatch had, (tokens, experts).
        top_k: choices of a token.

    Returns:
        (tokens, hidden).
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
        """Map (batch, sequence, hidden) to the same shape."""
        n = self.norm(x)
        gates = self.router(n)
        out = self.experts(self.dispatch(n, gates))
        return x + combine(out, gates, self.router.top_k).view_as(x)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.moe_gpt.layers`, freshly initialised."""
    w = experiment.workload
    if index == 0 or index % 2:
        return gpt.layer(experiment, index)
    return Mixture(w.hidden, w.ffn, w.experts, w.top_k, capacity(experiment))


class ExpertsPart(nn.Module):
    """This rank's experts, or its tensor share of them.

    Input are the slots for these experts from every rank of the expert axis, (experts, slots
    each, hidden); output is an addend of the sum over tensor ranks, in the same order. A rank
    has a share of fc1's columns, of fc2's rows and of the bias of fc2's outputs.
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
        """Map (experts, slots each, hidden) to the same shape."""
        _, each, hidden = slots.shape
        from_ranks = slots.view(self.ranks, -1, each, hidden).transpose(0, 1)
        mine = from_ranks.contiguous().view(-1, self.ranks * each, hidden)
        bias = functional.pad(self.bias, self.margins).unsqueeze(1)
        out: Tensor = self.fc2(functional.gelu(self.fc1(mine))).add_(bias)
        return out.view(-1, self.ranks, each, hidden).transpose(0, 1).reshape(slots.shape)


class Combine(nn.Module):
    """The combination as a layer, without residual: (batch, sequence, hidden)."""

    def __init__(self, top_k: int, sequence: int):
        super().__init__()
        self.top_k, self.sequence = top_k, sequence

    def forward(self, out: Tensor, gates: Tensor) -> Tensor:
        """Return the tokens' outputs, (batch, sequence, hidden)."""
        return combine(out, gates, self.top_k).view(-1, self.sequence, out.shape[2])


class Residual(nn.Module):
    """The sum with the residual."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add two tensors of the same shape."""
        return residual + x


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module:
    """Return what one rank has of `whole`; see `simulator.workloads.moe_gpt.split_layers`."""
    if not isinstance(whole, Mixture):
        return gpt.shard_module(whole, name, experiment, coordinate)
    if name == "experts":
        over, share = Share(experiment, coordinate, "expert"), Share(experiment, coordinate)
        return ExpertsPart(whole.experts, over, share)
    if name == "combine":
        return Combine(whole.router.top_k, len(Share(experiment, coordinate).positions))
    if name == "residual":
        return Residual()
    return {"norm": whole.norm, "router": whole.router, "dispatch": whole.dispatch}[name]

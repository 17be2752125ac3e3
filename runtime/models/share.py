"""One rank's share of the layers of a transformer: which rows, columns and tokens it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import torch
from torch import Tensor, nn

from runtime.models.deferral import Linear
from simulator.experiment.experiment import Experiment
from simulator.workloads.context import zigzag


class Share:
    """One rank's share of rows or columns: number `index` of `count` equal ones along a mesh axis.

    Attributes:
        index: position of the share.
        count: number of shares.
        positions: positions in a sequence of the tokens that this rank has.
        sequence: length of a whole sequence.
        ranks: number of context ranks that a sequence is split over.
    """

    def __init__(self, experiment: Experiment, coordinate: Mapping[str, int], axis: str = "tensor"):
        self.index = coordinate.get(axis, 0)
        self.count: int = getattr(experiment.parallel, axis)
        self.sequence, self.ranks = experiment.workload.sequence, experiment.parallel.context
        rank, everywhere = coordinate.get("context", 0), torch.arange(self.sequence)
        self.positions = everywhere.chunk(self.ranks)[rank]
        if zigzag(experiment):
            chunks = everywhere.chunk(2 * self.ranks)
            self.positions = torch.cat([chunks[rank], chunks[2 * self.ranks - 1 - rank]])

    def of(self, weight: Tensor, dim: int = 0, groups: Sequence[int] = ()) -> Tensor:
        """Return this share of `weight` along `dim`, taken from each of some groups.

        Args:
            weight: of the whole layer.
            dim: which dimension is divided.
            groups: sizes of the groups, as Q, K and V in one matrix; empty: all is one group.
        """
        parts = [
            group.chunk(self.count, dim)[self.index]
            for group in torch.split(weight, list(groups) or weight.shape[dim], dim)
        ]
        return torch.cat(parts, dim).detach().clone()

    def among(self, parts: int) -> Share:
        """Return this rank's share where there are only so many parts: neighbours have the same."""
        made = copy(self)
        made.count = min(self.count, parts)
        made.index = self.index * made.count // self.count
        return made

    def columns(self, whole: nn.Linear, groups: Sequence[int] = ()) -> Linear:
        """Return a linear layer with this share of the outputs."""
        bias = None if whole.bias is None else self.of(whole.bias, 0, groups)
        return linear_of(self.of(whole.weight, 0, groups), bias)

    def rows(self, whole: nn.Linear) -> Linear:
        """Return a linear layer with this share of the inputs; its bias is added elsewhere."""
        return linear_of(self.of(whole.weight, 1), None)


def linear_of(weight: Tensor, bias: Tensor | None) -> Linear:
    """Make a linear layer with these values: weight (outputs, inputs), bias (outputs,) or None."""
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def tokens_here(experiment: Experiment, share: Share) -> Tensor:
    """Return the positions of the tokens whose norms and residuals this rank computes.

    They are positions in a sequence or, with sequence parallelism, in a share of all tokens
    of a microbatch, row by row.
    """
    if not experiment.parallel.sequence_parallel:
        return share.positions
    return share.of(share.positions.repeat(experiment.microbatch_size))

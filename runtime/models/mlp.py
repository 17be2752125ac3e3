"""The layers of `simulator.workloads.mlp`, whole and split over tensor ranks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from runtime.models.deferral import Linear
from runtime.models.loss import squared_error
from runtime.models.share import Share
from runtime.models.transformer import Add, MlpPart
from simulator.experiment.experiment import Experiment
from simulator.workloads.mlp import skips


class Perceptron(nn.Module):
    """x + fc2(GELU(fc1(x)))."""

    def __init__(self, hidden: int, ffn: int):
        super().__init__()
        self.fc1 = Linear(hidden, ffn)
        self.fc2 = Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, hidden) to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return x + out


class JoinedPerceptron(Perceptron):
    """A perceptron of the sum of its input and of a skip connection."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """Map two tensors of (batch, sequence, hidden) to one."""
        return super().forward(x + skip)


class SquaredError(nn.Module):
    """The mean squared error as a layer: a scalar."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (batch, sequence, hidden) for a target of the same shape."""
        return squared_error(x, target)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Build layer `index` of `simulator.workloads.mlp.layers`, freshly initialised."""
    w = experiment.workload
    if index == w.layers:
        return SquaredError()
    joined = w.skips and index in skips(w.layers)
    return (JoinedPerceptron if joined else Perceptron)(w.hidden, w.ffn)


class First(nn.Module):
    """One tensor rank's share of fc1.

    It reads (batch, sequence, hidden), or the gathered columns of all ranks. By columns it
    returns this rank's columns of the output; by rows its addend of the whole output.
    """

    def __init__(self, whole: Perceptron, share: Share, style: str):
        super().__init__()
        self.style, self.share = style, share
        self.fc1 = share.columns(whole.fc1) if style == "column" else share.rows(whole.fc1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input to (batch, sequence, columns of this rank or all of them)."""
        if self.style == "column":
            return functional.gelu(self.fc1(together(x)))
        out: Tensor = self.fc1(x.chunk(self.share.count, -1)[self.share.index].contiguous())
        return out


class Second(nn.Module):
    """One tensor rank's share of fc2.

    By columns it returns this rank's columns of the output, with bias and residual; by rows
    its addend of the whole output.
    """

    def __init__(self, whole: Perceptron, share: Share, style: str):
        super().__init__()
        self.style, self.share = style, share
        if style == "column":
            self.fc2 = share.columns(whole.fc2)
        else:
            self.bias = nn.Parameter(share.of(whole.fc1.bias))
            self.fc2 = share.rows(whole.fc2)

    def mine(self, x: Tensor) -> Tensor:
        """Return this rank's columns of `x`."""
        return x.chunk(self.share.count, -1)[self.share.index]

    def forward(self, inner: Tensor, x: Tensor | None = None) -> Tensor:
        """Map the inner activations, and by columns the residual `x`, to the output."""
        out: Tensor
        if x is not None:
            out = self.fc2(together(inner))
            return out + (x[self.share.index] if x.dim() == 4 else self.mine(x))
        out = self.fc2(functional.gelu(self.mine(inner) + self.bias))
        return out


def together(x: Tensor) -> Tensor:
    """Put the columns of all ranks, (ranks, batch, sequence, columns), side by side."""
    return x if x.dim() == 3 else x.movedim(0, 2).flatten(2)


class Error(nn.Module):
    """This rank's addend of the mean squared error, (1,)."""

    reads_target = True

    def __init__(self, share: Share):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the error of this rank's columns, divided by the number of ranks."""
        mine = target.chunk(self.share.count, -1)[self.share.index]
        return squared_error(x, mine).view(1) / self.share.count


class Total(nn.Module):
    """The loss as the sum of the ranks' addends: a scalar."""

    reads_target = False

    def forward(self, x: Tensor) -> Tensor:
        """Sum (ranks,) up."""
        return x.sum()


def shard_module(
    whole: nn.Module, name: str, experiment: Experiment, coordinate: Mapping[str, int]
) -> nn.Module:
    """Return what one rank has of `whole`; see `simulator.workloads.mlp.split_layers`."""
    share, style = Share(experiment, coordinate), experiment.parallel.tensor_style
    if name == "error":
        return Error(share)
    if name == "loss":
        return Total() if style == "column" else whole
    assert isinstance(whole, Perceptron)
    if name == "add":
        return Add(whole.fc2)
    kind = name.removesuffix("-first")
    if kind == "columns-rows":
        return MlpPart(whole.fc1, whole.fc2, share)
    return First(whole, share, style) if kind == "fc1" else Second(whole, share, style)

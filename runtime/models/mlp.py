"""The modules of `simulator.workloads.mlp`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from runtime.deferral import Linear
from simulator.experiment import Experiment


class Perceptron(nn.Module):
    """x + fc2(GELU(fc1(x)))."""

    def __init__(self, hidden: int, ffn: int):
        super().__init__()
        self.fc1 = Linear(hidden, ffn)
        self.fc2 = Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return x + out


class SquaredError(nn.Module):
    """Mean squared error: a scalar."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(x, target)


def layer(experiment: Experiment, index: int) -> nn.Module:
    """Layer `index` of `simulator.workloads.mlp.layers`, freshly initialised."""
    w = experiment.workload
    return SquaredError() if index == w.layers else Perceptron(w.hidden, w.ffn)

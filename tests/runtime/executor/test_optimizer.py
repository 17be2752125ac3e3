"""Steps on a flat buffer are those of torch's optimizers, to the bit."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.optimizer import Optimizer
from simulator.experiment.workload import OPTIMIZER_STATES

THEIRS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
}


def trained(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    flat = torch.randn(40, dtype=torch.float64)
    theirs = torch.nn.Parameter(flat.clone())
    ours, reference = Optimizer(name, flat), THEIRS[name]([theirs])
    assert ours.nbytes == OPTIMIZER_STATES[name] * flat.nbytes
    for _ in range(5):
        gradients = torch.randn(40, dtype=torch.float64)
        ours.step(flat, gradients, 0.1)
        theirs.grad = gradients
        reference.step()
    return flat, theirs.detach()


@pytest.mark.parametrize("name", OPTIMIZER_STATES)
def test_steps_are_those_of_torch(name: str) -> None:
    ours, theirs = trained(name)
    assert torch.equal(ours, theirs)


def test_adamw_decays_weights_and_adam_does_not() -> None:
    assert not torch.equal(trained("adam")[0], trained("adamw")[0])

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


@pytest.mark.parametrize("name", OPTIMIZER_STATES)
def test_a_step_that_overflowed_leaves_no_trace(name: str) -> None:
    """Neither in weights and states nor in the count of steps."""
    torch.manual_seed(0)
    flat = torch.randn(40, dtype=torch.float64)
    plain, ours, optimizers = flat.clone(), flat.clone(), []
    for weights, overflows in ((plain, (False, False)), (ours, (False, True, False))):
        optimizers.append(Optimizer(name, weights))
        generator = torch.Generator().manual_seed(1)
        for overflow in overflows:
            gradients = torch.full((40,), torch.nan, dtype=torch.float64)
            if not overflow:
                gradients = torch.randn(40, dtype=torch.float64, generator=generator)
            optimizers[-1].step(weights, gradients, 0.1, torch.tensor(overflow))
    assert torch.equal(plain, ours)
    for one, other in zip(optimizers[0].states, optimizers[1].states, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(optimizers[0].count, optimizers[1].count)

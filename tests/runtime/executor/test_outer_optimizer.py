"""The outer optimizer is torch's SGD with Nesterov's momentum."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.outer_optimizer import OuterOptimizer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_torch(momentum: float) -> None:
    torch.manual_seed(0)
    before = torch.randn(50, dtype=torch.float64)
    theirs = before.clone().requires_grad_()
    torchs = torch.optim.SGD([theirs], lr=0.7, momentum=momentum, nesterov=momentum > 0)
    ours = OuterOptimizer(before, momentum)
    assert ours.nbytes == (2 if momentum else 1) * before.nbytes
    for _ in range(4):
        averaged = theirs.detach() + 0.1 * torch.randn(50, dtype=torch.float64)
        theirs.grad = theirs.detach() - averaged
        torchs.step()
        ours.step(averaged, 0.7, momentum)
        assert torch.allclose(averaged, theirs.detach(), rtol=1e-14, atol=1e-15)
        assert averaged.equal(ours.before)

"""The outer optimizer of a bucket, whose gradient is what local steps have changed."""

from __future__ import annotations

import torch
from torch import Tensor


class OuterOptimizer:
    """SGD, with Nesterov's momentum if there is any, as `torch.optim.SGD` does it.

    Args:
        parameters: those before the first period.
        momentum: 0: no velocity is kept.
    """

    def __init__(self, parameters: Tensor, momentum: float):
        self.before = parameters.clone()
        self.velocity = torch.zeros_like(parameters) if momentum else None

    @property
    def nbytes(self) -> int:
        """The bytes of the state."""
        return self.before.nbytes + (0 if self.velocity is None else self.velocity.nbytes)

    def step(self, averaged: Tensor, learning_rate: float, momentum: float) -> None:
        """Replace averaged parameters by those after the step, in place."""
        gradient = torch.sub(self.before, averaged, out=averaged)
        if self.velocity is not None:
            self.velocity.mul_(momentum).add_(gradient)
            gradient.add_(self.velocity, alpha=momentum)
        self.before.add_(gradient, alpha=-learning_rate)
        averaged.copy_(self.before)

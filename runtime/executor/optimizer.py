"""Optimizers on flat buffers, by torch's own functional forms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from simulator.experiment.workload import OPTIMIZER_STATES

MOMENTUM, BETAS, EPSILON = 0.9, (0.9, 0.999), 1e-8
DECAY = {"adam": 0.0, "adamw": 0.01}
"""Weight decay, torch's default; that of AdamW is decoupled from the gradient."""


class Optimizer:
    """The optimizer of one flat buffer, with its state.

    "sgd" has no state, "momentum" a velocity, "adam" (Kingma & Ba 2015) and "adamw" (Loshchilov
    & Hutter 2019) two moments, each tensor as large as the parameters.
    """

    def __init__(self, name: str, parameters: Tensor):
        self.name = name
        self.states = [torch.zeros_like(parameters) for _ in range(OPTIMIZER_STATES[name])]
        # One kernel for all of it, which needs the count of steps on the device.
        self._fused = parameters.is_cuda
        self.count = torch.zeros((), device=parameters.device if self._fused else "cpu")

    @property
    def nbytes(self) -> int:
        """The bytes of the state."""
        return sum(state.nbytes for state in self.states)

    def step(
        self,
        parameters: Tensor,
        gradients: Tensor,
        learning_rate: float,
        overflow: Tensor | None = None,
    ) -> None:
        """Update `parameters` in place.

        Args:
            parameters, gradients: flat.
            learning_rate: the size of the step.
            overflow: if true, nothing changes. The device decides that, from copies of what was
                there before; a host would have to wait until it knows.
        """
        changed = (parameters, *self.states, self.count)
        before = [] if overflow is None else [tensor.clone() for tensor in changed]
        self._step(parameters, gradients, learning_rate)
        for tensor, old in zip(changed, before, strict=False):
            tensor.copy_(torch.where(overflow, old, tensor))  # type: ignore[arg-type]

    def _step(self, parameters: Tensor, gradients: Tensor, learning_rate: float) -> None:
        if self.name in DECAY:
            adam(
                *([parameters], [gradients], [self.states[0]], [self.states[1]], []),
                [self.count],
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=learning_rate,
                weight_decay=DECAY[self.name],
                decoupled_weight_decay=True,
                eps=EPSILON,
                maximize=False,
                fused=self._fused,
            )
        else:
            velocity: list[Tensor | None] = [*self.states] or [None]
            sgd(
                *([parameters], [gradients], velocity),
                weight_decay=0.0,
                momentum=MOMENTUM if self.states else 0.0,
                lr=learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

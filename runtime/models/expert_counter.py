"""The counts of what a mixture of experts chose and dropped."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExpertCounter(nn.Module):
    """Counts the choices of a mixture of experts; a module, so that it moves with its layer.

    Attributes:
        load: choices per expert since the last `restart`.
        dropped: choices of all experts that got no slot since then.
        is_on: whether forward passes are counted; one that recomputes is not.
    """

    load: Tensor
    dropped: Tensor

    def __init__(self, experts: int):
        super().__init__()
        self.is_on = True
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64), persistent=False)
        self.register_buffer("dropped", torch.zeros((), dtype=torch.int64), persistent=False)

    def restart(self) -> None:
        """Set the counts to 0."""
        self.load.zero_()
        self.dropped.zero_()

    def add(self, load: Tensor, slots_each: int) -> None:
        """Count a pass, if passes are counted.

        Args:
            load: choices per expert.
            slots_each: how many of each have a slot.
        """
        if self.is_on:
            self.load += load
            self.dropped += (load - slots_each).clamp_(min=0).sum()

"""The sum and the weight of push-sum, whose ratio are the parameters that passes use."""

from __future__ import annotations

import torch
from torch import Tensor


class PushSum:
    """Replicas exchange this of a bucket: a sum of parameters, and behind it a weight, first 1.

    The optimizer updates the sum. Both are mixed in the same way, so that their totals over all
    replicas stay what they are, and the ratio is not biased towards anybody (Kempe et al. 2003).

    Args:
        parameters: as large as the sum, on its device.
        dtype: of the sum and the weight.

    Attributes:
        buffer: the sum and the weight.
    """

    def __init__(self, parameters: Tensor, dtype: torch.dtype):
        self.buffer = torch.ones(parameters.numel() + 1, dtype=dtype, device=parameters.device)

    @property
    def sum(self) -> Tensor:
        """The sum, without the weight."""
        return self.buffer[:-1]

    @property
    def weight(self) -> Tensor:
        """The weight, one number."""
        return self.buffer[-1]

    def ratio(self) -> Tensor:
        """Return the parameters."""
        return self.sum / self.weight

"""The loss scale of fp16: gradients too small for its range are lifted into it.

Dynamic (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2), with the constants
of `torch.amp.GradScaler`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BACKOFF, GROWTH, GROWTH_INTERVAL = 0.5, 2.0, 2000


class LossScaler:
    """The number that losses are multiplied with before the backward pass.

    It stays on the device, which decides what becomes of it, so that the host waits for nothing.

    Args:
        dtype: other types than fp16 have no scale.
        initial: the value of the first step.
        device: where it lives.

    Attributes:
        dynamic: there is a scale, which changes.
        value: that of the current step; None: there is no scale.
        skipped: the number of steps whose gradients had overflowed.
    """

    def __init__(self, dtype: str, initial: float, device: torch.device):
        self.dynamic = dtype == "fp16"
        self.value: Tensor | None = None
        if self.dynamic:
            self.value = torch.full((), initial, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._good = torch.zeros_like(self.skipped)

    def to_json(self) -> dict[str, Any] | None:
        """Return ``loss_scale`` of ``twinline run``; None where it does not change."""
        if self.value is None:
            return None
        return {"value": float(self.value), "skipped_steps": int(self.skipped)}

    def update(self, norm: Tensor) -> None:
        """Choose the value of the next step, after one whose gradients had this norm."""
        if self.value is None:
            return
        finite = norm.isfinite()
        self._good = torch.where(finite, self._good + 1, 0)
        grows = self._good == GROWTH_INTERVAL
        self.value = torch.where(finite, torch.where(grows, GROWTH, 1.0), BACKOFF) * self.value
        self._good = torch.where(grows, 0, self._good)
        self.skipped = self.skipped + ~finite

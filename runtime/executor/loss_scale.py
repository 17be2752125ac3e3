"""The loss scale of fp16: gradients too small for its range are lifted into it.

Dynamic (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2), with the constants
of `torch.amp.GradScaler`.
"""

from __future__ import annotations

import math
from typing import Any

BACKOFF, GROWTH, GROWTH_INTERVAL = 0.5, 2.0, 2000


class LossScaler:
    """The number that losses are multiplied with before the backward pass.

    Args:
        dtype: the scale of other types than fp16 is 1 and stays so.
        initial: the value of the first step.

    Attributes:
        value: the number of the current step.
        dynamic: it changes.
        skipped: the number of steps whose gradients had overflowed.
    """

    def __init__(self, dtype: str, initial: float):
        self.dynamic = dtype == "fp16"
        self.value = initial if self.dynamic else 1.0
        self.skipped = self._good = 0

    def to_json(self) -> dict[str, Any] | None:
        """Return ``loss_scale`` of ``twinline run``; None where it does not change."""
        return {"value": self.value, "skipped_steps": self.skipped} if self.dynamic else None

    def update(self, norm: float) -> None:
        """Choose the value of the next step, after one whose gradients had this norm."""
        if not self.dynamic:
            return
        if not math.isfinite(norm):
            self.value *= BACKOFF
            self.skipped, self._good = self.skipped + 1, 0
            return
        self._good += 1
        if self._good == GROWTH_INTERVAL:
            self.value, self._good = self.value * GROWTH, 0

"""Small integers, several in a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(small: Tensor, bits: int) -> Tensor:
    """Return bytes, the first integer in the lowest bits of the first.

    Args:
        small: integers below 2 to the power of `bits`, as bytes; flat, whole bytes of them.
        bits: of each: 1, 2, 4 or 8.
    """
    each = 8 // bits
    several = small.view(-1, each)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=small.device)
    return torch.bitwise_left_shift(several, shifts).sum(dim=1, dtype=torch.uint8)


def unpacked(several: Tensor, bits: int) -> Tensor:
    """Return the integers in bytes that `packed` has made."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=several.device)
    return (torch.bitwise_right_shift(several.unsqueeze(1), shifts) & ((1 << bits) - 1)).view(-1)

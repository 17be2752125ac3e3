"""A kernel that spins on some multiprocessors, as one of NCCL does that waits for a peer."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _spin(flag, limit):  # type: ignore[no-untyped-def]
    # An atomic addition of nothing reads what others have written; a load could stay in a cache.
    turns = 0
    while (tl.atomic_add(flag, 0) == 0) & (turns < limit):
        turns += 1


def spin(flag: Any, blocks: int, limit: int = 1 << 22) -> None:
    """Spin with so many blocks of 512 threads until `flag` is not 0; a few seconds at most."""
    _spin[(blocks,)](flag, limit, num_warps=16)

"""The machine that was calibrated: its device, memory and software, and its matrix product rate."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from typing import Any

import torch

from runtime import host
from runtime.executor.streams import synchronize

SIDES = {"cpu": 512, "cuda": 8192}
"""Side of the matrices per device: so large that launching a product costs nothing beside it."""


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Return the best FLOP/s of a few square matrix products, which MFU is relative to."""
    size = SIDES[device.type]
    a = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty_like(a)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, a, out=product)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def machine(device: torch.device) -> dict[str, Any]:
    """Return what identifies this machine and its software, as JSON.

    On a GPU, processor and memory are those of the GPU.
    """
    processor, memory = host.processor(), host.memory_bytes()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        processor, memory = found.name, found.total_memory
    return {
        "hostname": host.hostname(),
        "processor": processor,
        "cores": host.cores(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }

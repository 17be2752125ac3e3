"""What this machine is: its name, cores, memory and software."""

from __future__ import annotations

import os
import platform
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from runtime.executor.streams import synchronize

SIDES = {"cpu": 512, "cuda": 8192}
"""Of the matrices: large enough that launching the product is nothing beside it."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Of this host; 0 if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """The best of a few square matrix products, FLOP/s: what MFU is relative to."""
    size = SIDES[device.type]
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, a)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def machine(device: torch.device) -> dict[str, Any]:
    """What identifies this machine and its software. On a GPU processor and memory are its own."""
    processor, memory = _processor(), memory_bytes()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        processor, memory = found.name, found.total_memory
    return {
        "hostname": socket.gethostname(),
        "processor": processor,
        "cores": cores(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                name,
            )
    except OSError:
        return name

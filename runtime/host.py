"""The host that this process runs on; no torch needed."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path


def hostname() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the size of this host's memory; 0 if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def available_memory_bytes() -> int:
    """Return how much of this host's memory new processes can have; 0 if it does not say."""
    try:
        with Path("/proc/meminfo").open(encoding="utf-8") as lines:
            sizes = dict(line.split(":", 1) for line in lines)
        return int(sizes["MemAvailable"].removesuffix("kB\n")) * 1024
    except (OSError, KeyError, ValueError):
        return memory_bytes()


def processor() -> str:
    """Return the model name of this host's processor."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                name,
            )
    except OSError:
        return name

"""Variables that CUDA, NCCL and torch read when a rank first uses a GPU.

They must be set before torch is imported, so this file does not import it. What the user has set
stays as it is.
"""

from __future__ import annotations

import os

WORK_QUEUES = 32
"""The most that CUDA gives a device. Streams beyond that share queues, in which one waits behind
another: a send behind a receive that waits for the same peer is a deadlock. The default is 8
(CUDA's multi-process service, "Architecture"; docs/design.md)."""

GPU_ENVIRONMENT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": str(WORK_QUEUES),
    # Ours are groups of two ranks each, in which nothing else waits for a message.
    "TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING": "false",
}


def missing() -> dict[str, str]:
    """Return the variables that the user has not set."""
    return {name: value for name, value in GPU_ENVIRONMENT.items() if name not in os.environ}

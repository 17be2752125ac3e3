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

MESSAGE_CHANNELS = 8
"""The most channels of a message. A receive is posted a pass ahead, and its kernel occupies a
multiprocessor for one or two channels until the message comes: of NCCL's 32 between two GPUs on
NVLink that would be up to an eighth of the device, for every direction (docs/design.md)."""

GPU_ENVIRONMENT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": str(WORK_QUEUES),
    # Torch sends messages on streams of its own, which else are behind those of passes.
    "TORCH_NCCL_HIGH_PRIORITY": "1",
    "NCCL_MAX_P2P_NCHANNELS": str(MESSAGE_CHANNELS),
    # Ours are groups of two ranks each, in which nothing else waits for a message.
    "TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING": "false",
}


def missing() -> dict[str, str]:
    """Return the variables that the user has not set."""
    return {name: value for name, value in GPU_ENVIRONMENT.items() if name not in os.environ}

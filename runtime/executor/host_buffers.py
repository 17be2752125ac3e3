"""Memory of the host through which tensors of a GPU are sent where the backend knows hosts only."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor


class HostBuffers:
    """Buffers that are kept and used again, since to pin memory takes longer than many a message.

    A GPU copies into and out of pinned memory without a further copy. What is not given back,
    after a failure, is not used again.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = defaultdict(list)

    def take(self, like: Tensor) -> Tensor:
        """Return a buffer of the shape of a tensor; what it holds is anything."""
        try:
            return self._free[like.shape, like.dtype].pop()
        except IndexError:
            return torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)

    def give_back(self, buffer: Tensor) -> None:
        """Let others use a buffer again."""
        self._free[buffer.shape, buffer.dtype].append(buffer)


def is_on_host(tensor: Tensor) -> bool:
    """Tell whether a tensor is in the memory of the host, so that it needs no buffer."""
    return tensor.device.type == "cpu"

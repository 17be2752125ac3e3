"""What a rank really holds: every boundary tensor, and what autograd keeps for backward."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import torch
from torch import Tensor

Key = tuple[str, int]


class Ledger:
    """Bytes held over time, from the sizes of the real tensors; safe across streams."""

    def __init__(self, resident: int):
        self.resident = resident
        self._lock = threading.Lock()
        self._held: dict[Key, int] = {}
        self.changes: list[tuple[float, int]] = []
        self.saved_bytes: dict[int, int] = {}

    def restart(self) -> None:
        """Begin a step.

        Raises:
            RuntimeError: the step before left something behind.
        """
        if self._held:
            raise RuntimeError(f"still held after the step: {sorted(self._held)[:3]}")
        self.changes = []

    def clear(self) -> None:
        self._held.clear()

    def hold(self, key: Key, nbytes: int, time: float) -> None:
        with self._lock:
            self._held[key] = nbytes
            self.changes.append((time, nbytes))

    def release(self, key: Key, time: float) -> None:
        with self._lock:
            self.changes.append((time, -self._held.pop(key)))


class SavedBytes:
    """Counts what autograd saves inside the ``with`` block: each storage once, without the
    tensors in `excluding` (parameters, buffers, the block's own input)."""

    def __init__(self, excluding: Iterable[Tensor]):
        self._known = {tensor.untyped_storage().data_ptr() for tensor in excluding}
        self._seen: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in self._known:
            self._seen[address] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def nbytes(self) -> int:
        return sum(self._seen.values())

    def exclude(self, tensors: Iterable[Tensor]) -> None:
        """Do not count these: they are counted under names of their own."""
        for tensor in tensors:
            self._seen.pop(tensor.untyped_storage().data_ptr(), None)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

"""The bytes that a rank really holds: boundary tensors, and what autograd keeps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from simulator.program.tensors import TensorKey, TensorName
from simulator.timeline.timeline import MemoryParts

Change = tuple[int, bool, int, TensorName]
"""Position of an instruction in the list, whether it is at its end that bytes change (else at its
begin), how many more or less, and the logical name of the tensor."""


@dataclass
class Freed:
    """Memory that an instruction has freed: nobody names it any more, but it is still there.

    Attributes:
        tensors: those that are held by this object alone, as far as the program is concerned.
        drops: give back the memory of what is more than a tensor.
    """

    tensors: list[Tensor] = field(default_factory=list)
    drops: list[Callable[[], None]] = field(default_factory=list)

    def drop(self) -> None:
        """Give the memory back; to be called once nothing that used it is under way."""
        self.tensors.clear()
        while self.drops:
            self.drops.pop(0)()


class Ledger:
    """Counts the bytes held over time, from the sizes of the real tensors.

    Safe across streams.

    Args:
        resident: bytes held throughout.

    Attributes:
        changes: those of this step.
        saved_bytes: what autograd keeps of a forward pass, by its first layer.
    """

    def __init__(self, resident: MemoryParts):
        self.resident = resident
        self._lock = threading.Lock()
        self._held: dict[TensorKey, tuple[int, Callable[[], None] | None]] = {}
        self.changes: list[Change] = []
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
        """Forget what is held."""
        self._held.clear()

    def hold(
        self, key: TensorKey, nbytes: int, index: int, drop: Callable[[], None] | None = None
    ) -> None:
        """Count `nbytes` from the begin of an instruction on.

        Args:
            key: what they are of.
            nbytes: how many.
            index: position of the instruction.
            drop: gives them back when they are released; None: nobody else holds them.
        """
        with self._lock:
            self._held[key] = (nbytes, drop)
            self.changes.append((index, False, nbytes, key[0]))

    def release(self, key: TensorKey, index: int) -> Callable[[], None] | None:
        """Count what is held under `key` no longer than to the end of an instruction.

        Returns:
            What gives its memory back; None: nobody else holds it.
        """
        with self._lock:
            nbytes, drop = self._held.pop(key)
            self.changes.append((index, True, -nbytes, key[0]))
        return drop


def refetched(
    tensors: Mapping[int, Tensor], fetch: Callable[[int], Tensor] | None
) -> contextlib.AbstractContextManager[Any]:
    """Let autograd keep no hold of `tensors` inside the ``with`` block.

    Where it would save one (or a view), it notes which, and asks `fetch` when the backward
    pass needs it.

    Args:
        tensors: by a number that `fetch` knows.
        fetch: returns the tensor of a number; None: autograd saves tensors as usual.
    """
    if not tensors or fetch is None:
        return contextlib.nullcontext()
    index_of = {t.untyped_storage().data_ptr(): index for index, t in tensors.items()}
    counter = SavedBytes.active

    def pack(tensor: Tensor) -> Any:
        index = index_of.get(tensor.untyped_storage().data_ptr())
        if index is not None:
            return index, tensor.size(), tensor.stride(), tensor.storage_offset()
        return tensor if counter is None else counter.pack(tensor)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        index, *view = packed
        return fetch(index).as_strided(*view)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


class SavedBytes:
    """Counts what autograd saves inside the ``with`` block, each storage once.

    Args:
        excluding: tensors that are counted elsewhere: parameters, buffers, the block's input.

    Attributes:
        active: the one whose block is running; other hooks inside it hide its own.
    """

    active: ClassVar[SavedBytes | None] = None

    def __init__(self, excluding: Iterable[Tensor]):
        self._known = {tensor.untyped_storage().data_ptr() for tensor in excluding}
        self._seen: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._known:
            self._seen[address] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def nbytes(self) -> int:
        """The bytes counted so far."""
        return sum(self._seen.values())

    def exclude(self, tensors: Iterable[Tensor]) -> None:
        """Do not count these: they are counted under names of their own."""
        for tensor in tensors:
            self._seen.pop(tensor.untyped_storage().data_ptr(), None)

    def __enter__(self) -> SavedBytes:
        SavedBytes.active = self
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        SavedBytes.active = None
        self._hooks.__exit__(*error)

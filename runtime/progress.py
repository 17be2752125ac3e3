"""Where a rank is, visible from outside its process even when it hangs."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_RECORD = struct.Struct("<qqq")  # instruction index, waiting (0 or 1), counter


class Progress:
    """One rank's record in a shared file: which instruction, and whether it waits there."""

    def __init__(self, memory: mmap.mmap | None = None, rank: int = 0):
        self._memory, self._offset = memory, rank * _RECORD.size
        self._counter = 0

    def enter(self, index: int) -> None:
        """The rank now executes its instruction `index`."""
        self._write(index, 0)

    def wait(self, index: int) -> None:
        """The rank now waits for its instruction `index` to end on another stream."""
        self._write(index, 1)

    def leave(self) -> None:
        """The rank is between steps."""
        self._write(-1, 0)

    def _write(self, index: int, waiting: int) -> None:
        self._counter += 1
        if self._memory is not None:
            _RECORD.pack_into(self._memory, self._offset, index, waiting, self._counter)

    def read(self) -> tuple[int, bool, int]:
        """(instruction index or -1, waiting, counter), from any process."""
        if self._memory is None:
            return -1, False, self._counter
        index, waiting, counter = _RECORD.unpack_from(self._memory, self._offset)
        return index, bool(waiting), counter


def create(path: Path, num_ranks: int) -> None:
    """Make the shared file, with every rank between steps."""
    path.write_bytes(_RECORD.pack(-1, 0, 0) * num_ranks)


def attach(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)

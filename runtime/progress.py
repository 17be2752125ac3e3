"""The position of a rank and how it ended, visible even when its process hangs.

Both are kept in a folder that the launching process and its ranks share.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_RECORD = struct.Struct("<qqq")  # instruction index, waiting (0 or 1), counter


class Progress:
    """The record of one rank: which instruction it is in, and whether it waits there.

    Args:
        memory: the shared file, see `attach`; None: nobody reads the record.
        rank: whose record it is.
    """

    def __init__(self, memory: mmap.mmap | None = None, rank: int = 0):
        self._memory, self._offset = memory, rank * _RECORD.size
        self._counter = 0

    def enter(self, index: int) -> None:
        """Note that the rank now executes its instruction `index`."""
        self._write(index, 0)

    def wait(self, index: int) -> None:
        """Note that the rank now waits for its instruction `index` on another stream."""
        self._write(index, 1)

    def leave(self) -> None:
        """Note that the rank is between steps."""
        self._write(-1, 0)

    def _write(self, index: int, waiting: int) -> None:
        self._counter += 1
        if self._memory is not None:
            _RECORD.pack_into(self._memory, self._offset, index, waiting, self._counter)

    def read(self) -> tuple[int, bool, int]:
        """Return (instruction index or -1, waiting, counter), from any process."""
        if self._memory is None:
            return -1, False, self._counter
        index, waiting, counter = _RECORD.unpack_from(self._memory, self._offset)
        return index, bool(waiting), counter


def create(folder: Path, num_ranks: int) -> None:
    """Make the shared file, with every rank between steps."""
    _file(folder).write_bytes(_RECORD.pack(-1, 0, 0) * num_ranks)


def attach(folder: Path) -> mmap.mmap:
    """Return the shared file as memory."""
    with _file(folder).open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def mark_ready(folder: Path) -> None:
    """Note that all ranks have been started."""
    (folder / "ready").touch()


def is_ready(folder: Path) -> bool:
    """Tell whether all ranks have been started."""
    return (folder / "ready").exists()


def note_end(folder: Path, rank: int, exit_code: int) -> None:
    """Note how the process of a rank ended; `exit_code` is as in `subprocess`."""
    part = folder / f"ended-{rank}.part"
    part.write_text(str(exit_code), encoding="utf-8")
    part.rename(folder / f"ended-{rank}")


def end_of(folder: Path, rank: int) -> int | None:
    """Return the exit code of a rank, minus the signal if one killed it; None if unknown."""
    path = folder / f"ended-{rank}"
    return int(path.read_text(encoding="utf-8")) if path.exists() else None


def _file(folder: Path) -> Path:
    return folder / "progress"

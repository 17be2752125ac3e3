"""Memory that a program has freed and a device may still use."""

from __future__ import annotations

from collections import deque

from runtime.executor.device_streams import Event
from runtime.executor.ledger import Freed


class FreedQueue:
    """A queue of what instructions have freed, until their ends have passed.

    One thread empties it; others may add to it meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Event, Freed]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, end: Event, freed: Freed) -> None:
        """Keep what was freed until `end`, which is recorded before the queue is emptied."""
        self._waiting.append((end, freed))

    def drop_passed(self) -> None:
        """Give back the memory of everything whose end has passed."""
        for _ in range(len(self._waiting)):
            end, freed = self._waiting.popleft()
            if end.query():
                freed.drop()
            else:
                self._waiting.append((end, freed))

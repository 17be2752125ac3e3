"""Uses of shared resources, by the instructions whose they are."""

from __future__ import annotations

from collections.abc import Callable

from simulator.engine.contention import Activity


class Use:
    """A use of shared resources by instructions, once it has begun or before.

    Args:
        then: is called with it and the time at its end.
        time: when it begins.
        uids: whose it is.
        arrives: it is what one of them waits for before it is posted.

    Attributes:
        activity: stands for it while it lasts; None: it has not begun.
    """

    __slots__ = ("_then", "time", "uids", "arrives", "activity")

    def __init__(
        self,
        then: Callable[[Use, float], None],
        time: float,
        uids: tuple[int, ...],
        arrives: bool,
    ) -> None:
        self._then, self.time, self.uids, self.arrives = then, time, uids, arrives
        self.activity: Activity | None = None

    def done(self, now: float) -> None:
        """Tell that it has ended."""
        self._then(self, now)

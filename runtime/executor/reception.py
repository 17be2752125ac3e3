"""The reception of a server: requests come in while it works, and policies say whose turn it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from simulator.program.accept_queue import Acceptance
from simulator.program.arrival import Outcome, Request


class Reception:
    """The requests that have come to one queue and were not served yet.

    A thread listens for as many requests as the program has; it ends with the last of them.

    Args:
        acceptance: takes the decisions.
        hear: waits for the next request and returns its uid.
    """

    def __init__(self, acceptance: Acceptance, hear: Callable[[int], int]) -> None:
        self.acceptance, queue = acceptance, acceptance.queue
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._hear, self._count = hear, len(queue.accepts)
        threading.Thread(target=self._listen, name=f"reception {queue.name}", daemon=True).start()

    def serve(self, timeout_s: float) -> tuple[Request, Outcome]:
        """Return whose turn it is, and what it means; wait for somebody to come if need be.

        Raises:
            TimeoutError: nobody who may be served has come for so long.
            Exception: what was raised when it listened.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (request := self.acceptance.choose(self._waiting)) is None:
                if self._error is not None:
                    raise self._error
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"nobody to serve within {timeout_s:g} s")
                self._changed.wait(left)
            self._waiting.remove(request)
            return request, self.acceptance.accept(request)

    def outcome_of(self, step: int) -> Outcome:
        """Return what the request before an optimizer step means, by the uid of the step."""
        return self.acceptance.outcomes[self.acceptance.queue.steps.index(step)]

    def _listen(self) -> None:
        for number in range(self._count):
            try:
                request = self.acceptance.queue.by_uid[self._hear(number)]
            except Exception as error:  # raised where somebody waits to be told
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.append(request)
                self._changed.notify_all()

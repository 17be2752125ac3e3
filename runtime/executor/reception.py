"""The reception of a server: requests come in while it works, and policies say whose turn it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from simulator.program.accept_queue import Acceptance
from simulator.program.arrival import Outcome, Request
from simulator.units import listed


class Reception:
    """The requests that have come to one queue and were not served yet.

    A thread listens for as many requests as the program has; it ends with the last of them.

    Args:
        acceptance: takes the decisions.
        hear: waits for the next request and returns its uid.
    """

    def __init__(self, acceptance: Acceptance, hear: Callable[[int], int]) -> None:
        self.acceptance, queue = acceptance, acceptance.queue
        self._numbers = {
            uid: number for uids in (queue.accepts, queue.steps) for number, uid in enumerate(uids)
        }
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._done: set[int] = set()
        local = len(queue.requests.get(queue.server, ()))
        self._hear, self._count = hear, len(queue.accepts) - local
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
                    raise TimeoutError(f"nobody to serve within {timeout_s:g} s; {self._missing()}")
                self._changed.wait(left)
            self._waiting.remove(request)
            return request, self.acceptance.accept(request)

    def come(self, uid: int) -> None:
        """Let a local request wait, by its uid."""
        with self._changed:
            self._waiting.append(self.acceptance.queue.by_uid[uid])
            self._changed.notify_all()

    def carried_out(self, uid: int) -> None:
        """Tell who waits that its local request has been carried out."""
        with self._changed:
            self._done.add(uid)
            self._changed.notify_all()

    def wait_for(self, uid: int, timeout_s: float) -> None:
        """Wait until a local request has been carried out.

        Raises:
            TimeoutError: it was not for so long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: uid in self._done, timeout_s):
                raise TimeoutError(f"not served within {timeout_s:g} s")

    def outcome_of(self, step: int) -> Outcome:
        """Return what the request before an optimizer step means, by the uid of the step."""
        return self.acceptance.outcomes[self._numbers[step]]

    def served_by(self, accept: int) -> int:
        """Return the uid of the request that an ACCEPT has served, by its uid."""
        return self.acceptance.decisions[self._numbers[accept]].request

    def _missing(self) -> str:
        """Return which workers have not come, and which have and may not be served yet."""
        served = {decision.request for decision in self.acceptance.decisions}
        here = sorted({request.rank for request in self._waiting})
        requests = self.acceptance.queue.requests
        missing = [
            rank
            for rank in sorted(requests)
            if rank not in here and not served >= {*requests[rank]}
        ]
        kept = f"; waiting: rank {listed(here)}" if here else ""
        return f"not there: rank {listed(missing)}{kept}"

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

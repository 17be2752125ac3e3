"""The anchor that ties the clock of a GPU to that of the host."""

from __future__ import annotations

import time

import torch

TRIALS = 5


class Anchor:
    """A moment that is known on both clocks.

    An event is recorded and waited for between two looks at the host's clock. The host may be
    late to notice, so of several trials that with the shortest time between the looks counts, and
    the middle of it is when the device was there.

    The clocks drift apart, so an anchor is good for one step.
    """

    def __init__(self, device: torch.device) -> None:
        stream, best_s = torch.cuda.current_stream(device), float("inf")
        for _ in range(TRIALS):
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            before_s = time.perf_counter()
            event.record(stream)
            event.synchronize()
            after_s = time.perf_counter()
            if after_s - before_s < best_s:
                best_s = after_s - before_s
                self._event, self._host_s = event, (before_s + after_s) / 2

    def seconds(self, event: torch.cuda.Event) -> float:
        """Return when an event passed, in seconds of the host's clock."""
        since_ms: float = self._event.elapsed_time(event)
        return self._host_s + 1e-3 * since_ms

"""Streams of one rank: instructions of a stream run in order, streams run beside each other.

The compute stream is the calling thread. Every other stream is a thread with a queue, on
GPUs with a CUDA stream of its own: what it runs blocks that thread until it is finished,
so its end is known exactly.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch


class Ticket:
    """The end of one queued instruction, and what it failed with."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None

    def wait(self, timeout_s: float) -> None:
        """Block until the instruction has ended.

        Raises:
            TimeoutError: it has not within `timeout_s`.
            BaseException: what the instruction raised.
        """
        if not self.done.wait(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if self.error is not None:
            raise self.error


class Stream:
    """A thread that runs what it is given, one after the other.

    Args:
        name: of the thread.
        device: on a GPU the thread has a CUDA stream of its own.
    """

    def __init__(self, name: str, device: torch.device):
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], Ticket] | None] = (
            queue.SimpleQueue()
        )
        self._device = device
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> Ticket:
        """Queue `work`; the ticket tells when it has ended."""
        ticket = Ticket()
        self._queue.put((work, ticket))
        return ticket

    def close(self, timeout_s: float = 1.0) -> None:
        """Let what is queued finish, then end the thread; wait no longer than this for it."""
        self._queue.put(None)
        self._thread.join(timeout=timeout_s)

    def _loop(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread
        with on_cuda_stream(own_cuda_stream(self._device)):
            while (item := self._queue.get()) is not None:
                work, ticket = item
                try:
                    work()
                except BaseException as error:  # handed to whoever waits
                    ticket.error = error
                ticket.done.set()


def own_cuda_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a new CUDA stream of high priority; None on a CPU.

    Streams of normal priority come from a small pool that NCCL takes its own from, too, and two
    users of one stream wait for each other.
    """
    if device.type != "cuda":
        return None
    own: torch.cuda.Stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
    return own


def on_cuda_stream(own: torch.cuda.Stream | None) -> contextlib.AbstractContextManager[Any]:
    """Launch what is in the ``with`` block on the stream `own`; None: change nothing."""
    return contextlib.nullcontext() if own is None else torch.cuda.stream(own)


def synchronize(device: torch.device) -> None:
    """Wait until this thread's CUDA stream has run dry, so that clocks tell the truth."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


class Stopwatch:
    """Tells when a thread's work has ended, in seconds of the host's clock.

    On a GPU that is the moment when the device came to a CUDA event behind the work, not when
    the host noticed.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._anchor: torch.cuda.Event | None = None
        self._anchored_s = 0.0

    def restart(self) -> None:
        """Tie the device's clock to the host's; they drift, so once a step."""
        if self._device.type == "cuda":
            self._anchor = self._passed_event()
            self._anchored_s = time.perf_counter()

    def finish(self) -> float:
        """Wait until what this thread has queued is done; returns when it was."""
        if self._anchor is None:
            return time.perf_counter()
        since_ms: float = self._anchor.elapsed_time(self._passed_event())
        return self._anchored_s + 1e-3 * since_ms

    def _passed_event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        event.synchronize()
        return event

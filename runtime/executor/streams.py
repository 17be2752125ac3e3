"""Streams of one rank: instructions of a stream run in order, streams run beside each other.

The compute stream is the thread that walks the list. Every other stream is a queue, and a thread
for the time in which nobody waits: who needs the end of an instruction runs the queue up to there
itself, since to be woken by another thread takes longer than many a message. On a GPU the thread
has a CUDA stream of its own and runs everything.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from runtime.executor.anchor import Anchor

Work = Iterator[None]
"""The work of an instruction in two halves: up to its ``yield`` it is launched, then awaited."""


class Ticket:
    """One instruction in a stream: its work, whether that has ended, and what it failed with."""

    __slots__ = ("_stream", "_open", "work", "error")

    def __init__(self, stream: Stream, work: Work) -> None:
        self._stream, self.work = stream, work
        self._open = threading.Lock()
        self._open.acquire()
        self.error: BaseException | None = None

    @property
    def ended(self) -> bool:
        """True if its work has ended, or failed."""
        return not self._open.locked()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the instruction has ended; False if it has not within `timeout_s`.

        Raises:
            BaseException: what the instruction raised.
        """
        if not (self.ended or self._stream.run_until(self)):
            if not self._open.acquire(timeout=timeout_s):
                return False
            self._open.release()
        if self.error is not None:
            raise self.error
        return True

    def launch(self) -> None:
        """Do the first half of the work."""
        try:
            next(self.work, None)
        except BaseException as error:  # handed to whoever waits
            self.error = error

    def finish(self) -> None:
        """Do what is left of the work, and let go of whoever waits."""
        try:
            for _ in self.work:
                pass
        except BaseException as error:
            self.error = error
        self._open.release()


class Stream:
    """A queue of instructions and a thread that runs them when nobody else does.

    Args:
        name: of the thread.
        device: on a GPU the thread has a CUDA stream of its own.
        shared: other threads may run the queue, too: not where what runs must not hold them up.
    """

    def __init__(self, name: str, device: torch.device, shared: bool = True):
        self._device, self._shared = device, shared and device.type == "cpu"
        self._tickets: deque[Ticket] = deque()
        self._running = threading.Lock()  # held by whoever runs the queue
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work, ready: bool = False) -> Ticket:
        """Queue `work`; the ticket tells when it has ended.

        Args:
            work: what to do.
            ready: its first half does not wait for anything. If nothing is before it, that is
                done now, in the calling thread; `attend` must follow, or a wait.
        """
        ticket = Ticket(self, work)
        self._tickets.append(ticket)
        if ready and self._shared and self._running.acquire(blocking=False):
            try:
                if self._tickets[0] is ticket:
                    ticket.launch()
                    return ticket
            finally:
                self._running.release()
        self.attend()
        return ticket

    def attend(self) -> None:
        """Have the thread run what is queued, so that its end is noted when it comes."""
        if self._tickets:
            self._calls.put(True)

    def run_until(self, ticket: Ticket) -> bool:
        """Run the queue in the calling thread until `ticket` has ended; False if others do."""
        if not (self._shared and self._running.acquire(blocking=False)):
            self.attend()
            return False
        try:
            while not ticket.ended:
                self._run_first()
        finally:
            self._running.release()
        return True

    def close(self, timeout_s: float = 1.0) -> None:
        """Let what is queued finish, then end the thread; wait no longer than this for it."""
        self.attend()
        self._calls.put(False)
        self._thread.join(timeout=timeout_s)

    def _loop(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread
        with on_cuda_stream(own_cuda_stream(self._device, self._thread.name)):
            while self._calls.get():
                with self._running:
                    while self._tickets:
                        self._run_first()

    def _run_first(self) -> None:
        self._tickets[0].finish()
        self._tickets.popleft()


def own_cuda_stream(device: torch.device, name: str) -> torch.cuda.Stream | None:
    """Return this process's CUDA stream of high priority of a name; None on a CPU.

    Torch has 32 of a priority, NCCL's among them, and then gives the first again; two users of
    one stream wait for each other. So executors that take turns share those of one name.
    """
    return _cuda_stream(device, name) if device.type == "cuda" else None


@cache
def _cuda_stream(device: torch.device, name: str) -> torch.cuda.Stream:
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
        self._anchor: Anchor | None = None
        self._walker = threading.get_ident()

    def restart(self) -> None:
        """Tie the device's clock to the host's; they drift, so once a step."""
        if self._device.type == "cuda":
            self._anchor = Anchor(self._device)
            self._walker = threading.get_ident()

    def finish(self) -> float:
        """Wait until what this thread has queued is done; returns when it was.

        The thread that walks the list looks again and again, for it launches what comes next.
        Threads of streams sleep: a core for each of them would be taken from that one.
        """
        if self._anchor is None:
            return time.perf_counter()
        sleeps = threading.get_ident() != self._walker
        event = torch.cuda.Event(enable_timing=True, blocking=sleeps)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        event.synchronize()
        return self._anchor.seconds(event)

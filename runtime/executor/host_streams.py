"""Streams and events of a CPU, which stand in for those of a device.

Every stream is a thread that does what it was given, in order and beside the others: what does not
wait for what it needs finds something wrong or nothing at all, as on a GPU.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import torch

from runtime.executor.device_streams import DeviceStream, DeviceStreams, Event, Work

CLOSE_S = 1.0
LOOK_S = 0.1
"""The time between two looks of a stream that waits whether it was given up."""


class HostStreams(DeviceStreams):
    """The streams of one rank on a CPU.

    Args:
        delay: called by a stream, with its name, before each thing that it does; tests delay some.
    """

    def __init__(self, delay: Callable[[str], object] | None = None) -> None:
        self.delay = delay
        self.closed = threading.Event()
        self._streams: dict[str, HostStream] = {}

    def stream(self, name: str) -> HostStream:
        """Return the stream of this name."""
        if name not in self._streams:
            self._streams[name] = HostStream(name, self)
        return self._streams[name]

    def event(self) -> HostEvent:
        """Return a new event."""
        return HostEvent()

    def restart(self) -> None:
        """Nothing needs to be tied: there is one clock."""

    def close(self) -> None:
        """End the threads; one that hangs is left to the end of the process."""
        self.closed.set()
        for stream in self._streams.values():
            stream.launch(lambda: None)  # wakes it
        deadline = time.monotonic() + CLOSE_S  # of all streams together
        for stream in self._streams.values():
            stream.join(max(deadline - time.monotonic(), 0.0))


class _Mark:
    """One recording of an event."""

    def __init__(self) -> None:
        self.passed = threading.Event()
        self.seconds = 0.0

    def now(self) -> None:
        self.seconds = time.perf_counter()
        self.passed.set()


class HostEvent(Event):
    """An event of a stream of the host; one that was never recorded has passed."""

    def __init__(self) -> None:
        self.mark = _Mark()
        self.mark.passed.set()

    def query(self) -> bool:
        """Tell whether the stream has come there."""
        return self.mark.passed.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the stream has come there."""
        return self.mark.passed.wait(timeout_s)

    def seconds(self) -> float:
        """Return when the stream came there."""
        return self.mark.seconds


class HostStream(DeviceStream):
    """A stream of the host: a thread and its queue.

    After work that failed it does nothing more, so that no later event passes; the work itself
    says what went wrong to whoever needs to know.
    """

    def __init__(self, name: str, streams: HostStreams) -> None:
        self._name, self._streams = name, streams
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._num_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def wait(self, event: Event) -> None:
        """Let what is queued later wait."""
        assert isinstance(event, HostEvent)
        passed = event.mark.passed
        if not passed.is_set():
            self._queue.put(lambda: self._wait_for(passed))

    def launch(self, work: Work) -> None:
        """Queue `work`."""
        self._queue.put(work)

    def record(self, event: Event) -> None:
        """Queue `event`."""
        assert isinstance(event, HostEvent)
        event.mark = _Mark()
        self._queue.put(event.mark.now)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        # A new thread would use as many as there are cores until torch is asked.
        torch.set_num_threads(self._num_threads)
        closed, delay = self._streams.closed, self._streams.delay
        while not closed.is_set():
            work = self._queue.get()
            if delay is not None:
                delay(self._name)
            try:
                if not closed.is_set():
                    work()
            except Exception:
                return

    def _wait_for(self, passed: threading.Event) -> None:
        while not (passed.wait(LOOK_S) or self._streams.closed.is_set()):
            pass

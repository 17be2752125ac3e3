"""Streams and events of a GPU."""

from __future__ import annotations

import time

import torch

from runtime.executor.anchor import Anchor
from runtime.executor.device_streams import DeviceStream, DeviceStreams, Event, Work
from runtime.executor.streams import on_cuda_stream, own_cuda_stream
from simulator.program.stream import COMPUTE_STREAM

LOOK_S = 50e-6
"""The time between two looks of the host whether an event that it needs has passed."""


class CudaStreams(DeviceStreams):
    """The streams of one rank on its GPU.

    Passes run on the stream on which everything else of the process runs; others are streams of
    high priority, which all executors of a process share.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: dict[str, CudaStream] = {}
        self.anchor: Anchor | None = None

    def stream(self, name: str) -> CudaStream:
        """Return the stream of this name."""
        if name not in self._streams:
            if name == str(COMPUTE_STREAM):
                own = torch.cuda.current_stream(self._device)
            else:
                shared = own_cuda_stream(self._device, name)
                assert shared is not None
                own = shared
            self._streams[name] = CudaStream(own)
        return self._streams[name]

    def event(self) -> CudaEvent:
        """Return a new event."""
        return CudaEvent(self)

    def restart(self) -> None:
        """Tie the device's clock to the host's."""
        self.anchor = Anchor(self._device)

    def close(self) -> None:
        """Nothing needs to be given up: the streams end with the process."""


class CudaEvent(Event):
    """An event of a GPU."""

    def __init__(self, streams: CudaStreams) -> None:
        self._streams = streams
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def query(self) -> bool:
        """Tell whether the device has come there."""
        passed: bool = self.event.query()  # type: ignore[no-untyped-call]
        return passed

    def wait(self, timeout_s: float) -> bool:
        """Look again and again: to be woken by the device takes longer than most passes."""
        deadline = time.monotonic() + timeout_s
        while not self.query():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def seconds(self) -> float:
        """Return when it passed, by the anchor of the step."""
        assert self._streams.anchor is not None
        return self._streams.anchor.seconds(self.event)


class CudaStream(DeviceStream):
    """A stream of a GPU."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def wait(self, event: Event) -> None:
        """Let the device wait."""
        assert isinstance(event, CudaEvent)
        self._stream.wait_event(event.event)

    def launch(self, work: Work) -> None:
        """Call `work`, which launches kernels and returns before they have run."""
        with on_cuda_stream(self._stream):
            work()

    def record(self, event: Event) -> None:
        """Queue `event`."""
        assert isinstance(event, CudaEvent)
        event.event.record(self._stream)

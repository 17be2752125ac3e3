"""Streams and events of a device, as a host needs them that launches work and does not wait for it.

The semantics are those of CUDA: a stream does what it was given in order, beside other streams;
an event passes when its stream comes to it; recording an event again makes it a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

Work = Callable[[], object]
"""Launches work on the stream that is current in its thread."""


class Event(ABC):
    """A mark in a stream."""

    @abstractmethod
    def query(self) -> bool:
        """Tell whether the stream has come to where the event was recorded last."""

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Let the host wait until the event has passed; False if it has not within `timeout_s`."""

    @abstractmethod
    def seconds(self) -> float:
        """Return when it passed, in seconds of the host's clock."""


class DeviceStream(ABC):
    """A queue of work on a device; nothing here waits for what it queues."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Let what is queued later begin when `event`, as it was recorded last, has passed."""

    @abstractmethod
    def launch(self, work: Work) -> None:
        """Queue `work`."""

    @abstractmethod
    def record(self, event: Event) -> None:
        """Queue `event`."""


class DeviceStreams(ABC):
    """The streams of one rank."""

    @abstractmethod
    def stream(self, name: str) -> DeviceStream:
        """Return the stream of this name; it is made once."""

    @abstractmethod
    def event(self) -> Event:
        """Return a new event."""

    @abstractmethod
    def restart(self) -> None:
        """Begin a step: tie the device's clock to the host's."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is still queued."""

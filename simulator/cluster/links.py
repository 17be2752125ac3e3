"""Links between devices: bandwidth, and the protocols of the communication library over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2

FIRST_WINDOW = 10 * 1460
"""Bytes that a TCP connection sends before anything is confirmed (RFC 6928, section 2)."""


@dataclass(frozen=True)
class Connection:
    """The limits of one TCP connection of a link.

    Attributes:
        bandwidth: bytes/s that it carries at most.
        window: bytes that are under way at most, sent and not confirmed.
    """

    bandwidth: float
    window: float

    def speed(self, latency_s: float) -> float:
        """Return the bytes/s at which it goes on: a window in each round trip at most."""
        return min(self.bandwidth, self.window / (2 * latency_s) if latency_s else float("inf"))

    def start_s(self, latency_s: float, speed: float, nbytes: float) -> float:
        """Return the seconds that slow start takes beyond what the bytes need at full speed.

        The window doubles in each round trip (RFC 5681, section 3.1) until there is as much under
        way as `speed` takes, or all is sent.
        """
        window = min(speed * 2 * latency_s, nbytes)
        if window <= FIRST_WINDOW:
            return 0.0
        return max(log2(window / FIRST_WINDOW) - 1.0, 0.0) * 2 * latency_s


@dataclass(frozen=True)
class Protocol:
    """One way to move bytes over a link.

    Attributes:
        latency_s: seconds that every step takes besides its bytes.
        efficiency: share of the link's bandwidth that is reached.
    """

    latency_s: float
    efficiency: float


@dataclass(frozen=True)
class Link:
    """The connection of one device, and the protocols that it can be used with.

    Attributes:
        bandwidth: bytes/s in each direction.
        protocols: by their names; the library takes the fastest.
        connection: the limits of one TCP connection; None: there are none.
    """

    bandwidth: float
    protocols: dict[str, Protocol]
    connection: Connection | None = None

    def farther(self, latency_s: float) -> Link:
        """Return this link with so many seconds more in each step."""
        ways = {
            name: replace(protocol, latency_s=protocol.latency_s + latency_s)
            for name, protocol in self.protocols.items()
        }
        return replace(self, protocols=ways)

    @property
    def latency_s(self) -> float:
        """The latency of the quickest protocol, in seconds a step."""
        return min(protocol.latency_s for protocol in self.protocols.values())

    @property
    def efficiency(self) -> float:
        """The largest share of the bandwidth that a protocol reaches."""
        return max(protocol.efficiency for protocol in self.protocols.values())

    @property
    def speed(self) -> float:
        """The bandwidth that is reached at best, in bytes/s."""
        return self.bandwidth * self.efficiency

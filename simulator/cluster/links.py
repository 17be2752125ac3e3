"""Links between devices: bandwidth, and the protocols of the communication library over it."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    bandwidth: float
    protocols: dict[str, Protocol]

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

"""The communication library of a cluster: its algorithms and constants."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.cluster.links import Protocol


@dataclass(frozen=True)
class InNetwork(Protocol):
    """Switches that add up (SHARP, NVLS).

    Attributes:
        devices: the least number of devices of an island for which the library uses them.
    """

    devices: int


@dataclass(frozen=True)
class Library:
    """The communication library; see `simulator.cluster.tables.CollectivesTable`.

    Attributes:
        start_s: seconds before the first step of a collective or message.
        copy_bandwidth: bytes/s at which a device puts the payload in place.
        algorithms: names of the algorithms that it has.
        in_network: switches that add up; None: there are none.
        transfer_share: share of a device that a transfer takes from passes beside it.
        connections: TCP connections that share what a rank sends to another one.
        piece_s: seconds that a rank takes for each piece of a transfer that goes piecewise.
    """

    start_s: float = 0.0
    copy_bandwidth: float = float("inf")
    algorithms: tuple[str, ...] = ("ring", "pairwise")
    in_network: InNetwork | None = None
    transfer_share: float = 0.0
    connections: int = 1
    piece_s: float = 0.0

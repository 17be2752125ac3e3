"""Nodes of a cluster: their devices in order, and what those share.

Equal nodes that follow each other are kept as one run, so a million nodes take no more time or
memory than one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import gcd


@dataclass(frozen=True)
class Node:
    """The devices of one node, and how they share links.

    A device uses the network card nearest to it; with more cards than devices it has several.

    Attributes:
        devices: the kind of every device, in the order in which ranks are placed.
        per_island: devices that one island joins (NVLink).
        per_switch: devices behind one PCIe switch.
        nics: network cards.
        nic_bandwidth: bytes/s of one network card, each way.
    """

    devices: tuple[str, ...]
    per_island: int = 1
    per_switch: int = 1
    nics: int = 1
    nic_bandwidth: float = 0.0

    @property
    def bandwidth(self) -> float:
        """The bandwidth of all network cards together, in bytes/s each way."""
        return self.nics * self.nic_bandwidth

    @property
    def ports(self) -> int:
        """The number of network cards that its devices can tell apart."""
        return min(self.nics, len(self.devices))

    def card(self, position: int) -> int:
        """Return the network card that the device at `position` uses."""
        return position * self.ports // len(self.devices)

    def with_devices(self, count: int) -> Node:
        """Return this node with `count` devices; an island of all devices stays one island."""
        whole = self.per_island == len(self.devices)
        kinds = self.devices[:count] + self.devices[-1:] * (count - len(self.devices))
        island = count if whole else gcd(count, self.per_island)
        return replace(
            self, devices=kinds, per_island=island, per_switch=gcd(count, self.per_switch)
        )


@dataclass(frozen=True)
class Nodes:
    """A sequence of nodes, kept as runs of equal ones.

    Attributes:
        runs: (node, how many of it follow each other), in order.
    """

    runs: tuple[tuple[Node, int], ...]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Nodes:
        """Return the sequence of `nodes`."""
        return cls(tuple((node, 1) for node in nodes))

    @cached_property
    def _first_nodes(self) -> list[int]:
        """The number of the first node of every run, and the number of all nodes."""
        return [0, *accumulate(count for _, count in self.runs)]

    @cached_property
    def _first_devices(self) -> list[int]:
        """The number of the first device of every run, and the number of all devices."""
        return [0, *accumulate(count * len(node.devices) for node, count in self.runs)]

    @property
    def starts(self) -> list[tuple[int, int]]:
        """The numbers of the first device and of the first node of every run."""
        return list(zip(self._first_devices[:-1], self._first_nodes[:-1], strict=True))

    @property
    def count(self) -> int:
        """The number of nodes."""
        return self._first_nodes[-1]

    @property
    def num_devices(self) -> int:
        """The number of devices of all nodes."""
        return self._first_devices[-1]

    @cached_property
    def distinct(self) -> tuple[Node, ...]:
        """The nodes that differ, in order of first appearance."""
        return tuple(dict.fromkeys(node for node, _ in self.runs))

    @property
    def first(self) -> Node:
        """The first node."""
        return self.runs[0][0]

    def kinds_of_first(self, devices: int) -> Counter[str]:
        """Return how many of the first `devices` are of each kind."""
        found: Counter[str] = Counter()
        left = devices
        for node, count in self.runs:
            whole = min(left // len(node.devices), count)
            found.update({kind: many * whole for kind, many in Counter(node.devices).items()})
            left -= whole * len(node.devices)
            if whole < count:
                found.update(node.devices[:left])
                break
        return Counter({kind: many for kind, many in found.items() if many})

    def __getitem__(self, number: int) -> Node:
        return self.runs[bisect_right(self._first_nodes, number) - 1][0]

    def locate(self, device: int) -> tuple[int, int]:
        """Return the number of the node that `device` is in, and its position there.

        Raises:
            ValueError: there are fewer devices.
        """
        if not 0 <= device < self.num_devices:
            raise ValueError(f"device {device} is out of bounds: there are {self.num_devices}")
        run = bisect_right(self._first_devices, device) - 1
        node, _ = self.runs[run]
        number, position = divmod(device - self._first_devices[run], len(node.devices))
        return self._first_nodes[run] + number, position

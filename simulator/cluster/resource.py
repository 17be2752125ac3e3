"""Shared resources: the cores, devices and links that what overlaps may have to share."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from simulator.program.word import Word


class ResourceKind(Word):
    """The kinds of resources that are shared."""

    CORES = "cores"
    DEVICE = "device"
    MEMORY = "memory"
    ISLAND = "island"
    PCIE = "pcie"
    BRIDGE = "bridge"
    NIC = "nic"
    UPLINK = "uplink"


class Direction(Word):
    """The ways through a link, each with the whole bandwidth of the link; NONE: not a way."""

    NONE = ""
    OUT = "out"
    IN = "in"


class _Fields(NamedTuple):
    kind: ResourceKind
    number: int
    part: int
    direction: Direction


class Resource(_Fields):
    """A shared resource; its text form is for people and is never parsed.

    There is one object of each, which is the key of many mappings: equal ones are the same.

    Attributes:
        kind: what it is.
        number: of the node, device, PCIe switch or tier of switches that it belongs to.
        part: which of those of a node or tier it is: a network card, or a switch.
        direction: of a link, which of its ways is meant, if one is.
    """

    def __new__(
        cls, kind: ResourceKind, number: int, part: int = -1, direction: Direction = Direction.NONE
    ) -> Resource:
        """Return the one object of a resource, made when it is first asked for."""
        key = kind, number, part, direction
        found = _MADE.get(key)
        if found is None:
            found = _MADE.setdefault(key, super().__new__(cls, *key))
        return found

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[type[Resource], tuple[ResourceKind, int, int, Direction]]:
        return Resource, (self.kind, self.number, self.part, self.direction)

    def going(self, direction: Direction) -> Resource:
        """Return one way through this link."""
        return Resource(self.kind, self.number, self.part, direction)

    @cached_property
    def link(self) -> Resource:
        """The link that this is one way of."""
        return self.going(Direction.NONE)

    @cached_property
    def text(self) -> str:
        """The text form, as ``out:nic:0.1``, made once; resources are sorted by it."""
        way = f"{self.direction}:" if self.direction else ""
        part = f".{self.part}" if self.part >= 0 else ""
        return f"{way}{self.kind}:{self.number}{part}"

    def __str__(self) -> str:
        return self.text


_MADE: dict[tuple[ResourceKind, int, int, Direction], Resource] = {}

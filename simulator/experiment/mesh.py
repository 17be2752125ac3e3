"""The device mesh: which ranks form which group."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

AXES = ("data", "pipeline", "expert", "context", "tensor")
"""Slowest to fastest varying: tensor innermost, so that its ranks share a node."""


class Mesh:
    """All ranks as one array of shape (data, pipeline, expert, context, tensor).

    Args:
        order: axes from the slowest to the fastest varying as ranks are counted.
        kv: how many neighbours on `tensor` have the same heads of keys and values; groups of
            them are along "kv".
        degrees: sizes of the axes; an axis that is not named has size 1.
    """

    def __init__(self, order: Sequence[str] = AXES, kv: int = 1, **degrees: int):
        self.order = tuple(order)
        self.kv = kv
        self.degrees = {axis: degrees.get(axis, 1) for axis in AXES}
        counted = np.arange(math.prod(self.degrees.values()))
        counted = counted.reshape([self.degrees[axis] for axis in self.order])
        self.ranks = counted.transpose([self.order.index(axis) for axis in AXES])
        positions = np.unravel_index(self.ranks.ravel().argsort(), self.ranks.shape)
        self._coordinates = np.stack(positions, axis=1)
        self._groups: dict[tuple[str, ...], dict[int, tuple[int, ...]]] = {}

    @property
    def wide(self) -> frozenset[str]:
        """The axes along which a group has several ranks."""
        found = {axis for axis, degree in self.degrees.items() if degree > 1}
        return frozenset(found | {"kv"} if self.kv > 1 else found)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return int(self.ranks.size)

    def coordinate(self, rank: int) -> dict[str, int]:
        """Return the position of `rank` on each axis.

        Raises:
            ValueError: there is no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is out of bounds: there are {self.world_size}")
        return {axis: int(at) for axis, at in zip(AXES, self._coordinates[rank], strict=True)}

    def replica(self, rank: int) -> int:
        """Return which share of the batch `rank` takes, counted over all shares.

        Ranks at different positions of `data` and `expert` take different data.
        """
        coordinate = self.coordinate(rank)
        return coordinate["data"] * self.degrees["expert"] + coordinate["expert"]

    def group(self, rank: int, *axes: str) -> tuple[int, ...]:
        """Return the ranks that differ from `rank` in these axes only, ascending."""
        known = self._groups.setdefault(axes, {})
        if rank not in known:
            at = self._coordinates[rank]
            selector: list[slice | int] = [
                slice(None) if axis in axes else int(here)
                for axis, here in zip(AXES, at, strict=True)
            ]
            if "kv" in axes and "tensor" not in axes:
                begin = int(at[-1]) // self.kv * self.kv
                selector[-1] = slice(begin, begin + self.kv)
            group = tuple(sorted(self.ranks[tuple(selector)].ravel().tolist()))
            known.update(dict.fromkeys(group, group))
        return known[rank]

    def axes_of(self, group: Sequence[int]) -> tuple[str, ...]:
        """Return the axes in which the ranks of `group` differ."""
        positions = self._coordinates[list(group)]
        return tuple(axis for axis, at in zip(AXES, positions.T, strict=True) if len({*at}) > 1)

    def groups(self, *axes: str) -> list[tuple[int, ...]]:
        """Return every group along `axes`, each once."""
        return sorted({self.group(rank, *axes) for rank in range(self.world_size)})


def short_coordinate(mesh: Mesh, rank: int) -> str:
    """Return the position of a rank in short: ``d0 p1 t3``; empty on a mesh of one axis."""
    axes = [axis for axis in AXES if mesh.degrees[axis] > 1]
    coordinate = mesh.coordinate(rank)
    return " ".join(f"{axis[0]}{coordinate[axis]}" for axis in axes) if len(axes) > 1 else ""

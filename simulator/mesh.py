"""The device mesh: which ranks form which group."""

from __future__ import annotations

import numpy as np

AXES = ("data", "pipeline", "expert", "context", "tensor")
"""Slowest to fastest varying: tensor innermost, so that its ranks share a node."""


class Mesh:
    """All ranks as one array of shape (data, pipeline, expert, context, tensor)."""

    def __init__(self, **degrees: int):
        self.degrees = {axis: degrees.get(axis, 1) for axis in AXES}
        shape = tuple(self.degrees.values())
        self.ranks = np.arange(int(np.prod(shape))).reshape(shape)

    @property
    def world_size(self) -> int:
        return int(self.ranks.size)

    def coordinate(self, rank: int) -> dict[str, int]:
        """Where `rank` is on each axis."""
        place = np.unravel_index(rank, self.ranks.shape)
        return {axis: int(index) for axis, index in zip(AXES, place, strict=True)}

    def replica(self, rank: int) -> int:
        """Whose share of the batch `rank` takes, counted over all of them: those at different
        places of `data` and `expert` take different data."""
        place = self.coordinate(rank)
        return place["data"] * self.degrees["expert"] + place["expert"]

    def group(self, rank: int, *axes: str) -> tuple[int, ...]:
        """The ranks that differ from `rank` in these axes only, ascending."""
        place = list(np.unravel_index(rank, self.ranks.shape))
        selector = tuple(
            slice(None) if name in axes else index for name, index in zip(AXES, place, strict=True)
        )
        return tuple(int(member) for member in self.ranks[selector].flat)

    def representatives(self) -> list[int]:
        """One rank of every set of peers that do the same: the first place on every axis
        but the pipeline, where ranks have different layers."""
        first = tuple(slice(None) if axis == "pipeline" else 0 for axis in AXES)
        return [int(rank) for rank in self.ranks[first]]

    def groups(self, axis: str) -> list[tuple[int, ...]]:
        """Every group of `axis`, each once."""
        return sorted({self.group(rank, axis) for rank in range(self.world_size)})

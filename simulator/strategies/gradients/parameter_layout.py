"""Which ranks share a bucket: those that have one part each of it, and those that have the
same part.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from simulator.experiment.mesh import Mesh
from simulator.strategies.gradients.zero import shard_sets
from simulator.strategies.stages.segments import Spread
from simulator.workloads.layer import REPLICATED

MODEL_AXES = ("pipeline", "expert", "tensor")
"""Mesh axes over which the parameters of one model are spread."""


class Place(NamedTuple):
    """Ranks of a bucket: see `simulator.program.bucket.Bucket`."""

    replicas: tuple[int, ...]
    shards: tuple[int, ...]
    copies: int


class _Shards(NamedTuple):
    """Of one rank, with the number of its part."""

    ranks: tuple[int, ...]
    replicas: tuple[int, ...]
    number: int


class Places:
    """Of all buckets on `mesh`, with shard sets of `size` ranks.

    What ranks have in common is found once: large programs ask for it rank by rank.
    """

    def __init__(self, mesh: Mesh, size: int):
        self.mesh, self.size = mesh, size
        self._shards: dict[tuple[str, ...], dict[int, _Shards]] = {}
        self._models: dict[int, tuple[int, ...]] = {}
        self._copies: dict[tuple[Spread, int, int], Counter[int]] = {}

    def of(self, spread: Spread, rank: int) -> Place:
        """Of buckets of `rank` that are spread like this."""
        mine = self._shards_of(rank, spread.sums_over)
        copies = self._copies_of(spread, rank)[mine.number]
        return Place(mine.replicas, mine.ranks if len(mine.ranks) > 1 else (), copies)

    def model(self, rank: int) -> tuple[int, ...]:
        """The ranks that have the parts of the model that `rank` has a part of, all shards."""
        if rank not in self._models:
            sets = [
                self._shards_of(r, REPLICATED).ranks for r in self.mesh.group(rank, *MODEL_AXES)
            ]
            members = tuple(sorted({member for ranks in sets for member in ranks}))
            self._models.update(dict.fromkeys(members, members))
        return self._models[rank]

    def _shards_of(self, rank: int, axes: tuple[str, ...]) -> _Shards:
        known = self._shards.setdefault(axes, {})
        if rank not in known:
            group = self.mesh.group(rank, *axes)
            sets = shard_sets(group, self.size)
            replicas = [group[index :: len(sets[0])] for index in range(len(sets[0]))]
            for ranks in sets:
                for index, member in enumerate(ranks):
                    known[member] = _Shards(ranks, replicas[index], index)
        return known[rank]

    def _copies_of(self, spread: Spread, rank: int) -> Counter[int]:
        """Of each part, by number, how many ranks of one model hold it."""
        model = self.model(rank)
        same = self.mesh.group(rank, *spread.sums_over, *spread.copied_over)
        key = (spread, model[0], same[0])  # two sets have no rank in common
        if key not in self._copies:
            found = set(same).intersection(model)
            numbers = [self._shards_of(member, spread.sums_over).number for member in found]
            self._copies[key] = Counter(numbers)
        return self._copies[key]

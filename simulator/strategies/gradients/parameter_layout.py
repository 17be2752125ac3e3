"""The ranks that share a bucket: those with one part each of it, and those with equal parts."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import Mesh
from simulator.strategies.stages.bucket_contents import GradientAxes
from simulator.workloads.layer import REPLICATED

MODEL_AXES = ("pipeline", "expert", "tensor")
"""The mesh axes over which the parameters of one model are spread."""


class BucketRanks(NamedTuple):
    """The ranks of a bucket: see `simulator.program.bucket.Bucket`."""

    replicas: tuple[int, ...]
    shards: tuple[int, ...]
    copies: int


class _ShardSet(NamedTuple):
    """The ranks that share what one of them would hold, and which part of it a rank has."""

    ranks: tuple[int, ...]
    replicas: tuple[int, ...]
    number: int


def shard_sets(ranks: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """Return `ranks` divided into sets of `size` neighbours that share one set of shards each."""
    size = min(size, len(ranks))
    return [ranks[first : first + size] for first in range(0, len(ranks), size)]


def model_ranks(experiment: Experiment, rank: int) -> tuple[int, ...]:
    """Return the ranks that together hold the model that `rank` has a part of."""
    return ParameterLayout(experiment.mesh, experiment.parallel.shards).model_ranks(rank)


class ParameterLayout:
    """The places of all buckets on `mesh`, with shard sets of `size` ranks.

    Attributes:
        ends: the pipeline ranks of the first and the last stage, if these have weights in common.

    What ranks have in common is found once: large programs ask for it rank by rank.
    """

    def __init__(self, mesh: Mesh, size: int, ends: tuple[int, int] | None = None):
        self.mesh, self.size, self.ends = mesh, size, ends
        self._shards: dict[tuple[str, ...], dict[int, _ShardSet]] = {}
        self._models: dict[int, tuple[int, ...]] = {}
        self._copies: dict[tuple[GradientAxes, int, int], Counter[int]] = {}

    def bucket_ranks(self, axes: GradientAxes, rank: int) -> BucketRanks:
        """Return the ranks that share buckets of `rank` with these axes."""
        mine = self._shards_of(rank, axes.sums_over)
        copies = self._copies_of(axes, rank)[mine.number]
        replicas = mine.replicas
        if axes.tied and self.ends is not None:
            other = self._shards_of(self._other_end(rank), axes.sums_over)
            replicas, copies = tuple(sorted((*replicas, *other.replicas))), 2 * copies
        return BucketRanks(replicas, mine.ranks if len(mine.ranks) > 1 else (), copies)

    def _other_end(self, rank: int) -> int:
        """Return the rank at the other end of the pipeline of `rank`, which is at one."""
        assert self.ends is not None
        first, last = self.ends
        mine, pipeline = self.mesh.coordinate(rank)["pipeline"], self.mesh.group(rank, "pipeline")
        return pipeline[last if mine == first else first]

    def model_ranks(self, rank: int) -> tuple[int, ...]:
        """Return the ranks with the parts of the model that `rank` has a part of, all shards."""
        if rank not in self._models:
            sets = [
                self._shards_of(r, REPLICATED).ranks for r in self.mesh.group(rank, *MODEL_AXES)
            ]
            members = tuple(sorted({member for ranks in sets for member in ranks}))
            self._models.update(dict.fromkeys(members, members))
        return self._models[rank]

    def _shards_of(self, rank: int, axes: tuple[str, ...]) -> _ShardSet:
        known = self._shards.setdefault(axes, {})
        if rank not in known:
            group = self.mesh.group(rank, *axes)
            sets = shard_sets(group, self.size)
            replicas = [group[index :: len(sets[0])] for index in range(len(sets[0]))]
            for ranks in sets:
                for index, member in enumerate(ranks):
                    known[member] = _ShardSet(ranks, replicas[index], index)
        return known[rank]

    def _copies_of(self, axes: GradientAxes, rank: int) -> Counter[int]:
        """Return how many ranks of one model hold each part, by its number."""
        model = self.model_ranks(rank)
        same = self.mesh.group(rank, *axes.sums_over, *axes.copied_over)
        key = (axes, model[0], same[0])  # two sets have no rank in common
        if key not in self._copies:
            found = set(same).intersection(model)
            numbers = [self._shards_of(member, axes.sums_over).number for member in found]
            self._copies[key] = Counter(numbers)
        return self._copies[key]

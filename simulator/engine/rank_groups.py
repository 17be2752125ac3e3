"""The groups of a plan: every way in which its ranks are divided into groups that communicate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simulator.cluster.placement import Integers, Placement, together
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh
from simulator.strategies.gradients.parameter_layout import MODEL_AXES
from simulator.workloads.describe import describe
from simulator.workloads.layer import REPLICATED

EXCHANGES = ("expert", "context", "tensor")
"""Axes whose ranks exchange what layers need of each other."""


@dataclass(eq=False)
class Groups:
    """All ranks, divided into groups of equal size.

    Attributes:
        ranks: one row a group, its members ascending.
        order: what the order of members means: in a ``ring`` they send to their neighbours, the
            last one to the first; a ``pipeline`` has them in the order of its stages.
        row: of each rank its group.
        place: of each rank its position there.
    """

    ranks: Integers
    order: Literal["none", "ring", "pipeline"] = "none"
    row: Integers = field(init=False)
    place: Integers = field(init=False)

    def __post_init__(self) -> None:
        count, size = self.ranks.shape
        self.row, self.place = np.empty((2, count * size), dtype=np.int64)
        self.row[self.ranks] = np.arange(count)[:, None]
        self.place[self.ranks] = np.arange(size)

    def together(self, placement: Placement) -> Integers:
        """Return, per level and rank, how many of its group are in its unit; last: of all.

        Args:
            placement: of all ranks, in order. The ranks of a unit follow each other.
        """
        sizes = together(placement.units[:, self.ranks])
        found = np.full((len(sizes) + 1, self.ranks.size), self.ranks.shape[1])
        found[:-1, self.ranks] = sizes
        return found


def groups_of(experiment: Experiment) -> list[Groups]:
    """Return the groups of a plan that communicate, the ranks of each pipeline among them."""
    mesh, shards = experiment.mesh, experiment.parallel.shards
    found = [Groups(_along(mesh, ("pipeline",)), "pipeline")]
    for axis in EXCHANGES:
        found.append(Groups(_along(mesh, (axis,)), "ring" if axis == "context" else "none"))
    for axes in dict.fromkeys(layer.sums_over for layer in describe(experiment)):
        whole = _along(mesh, axes)
        found += map(Groups, _shard_sets(whole, min(shards, whole.shape[1])))
    if experiment.workload.needs_gradient_norm:
        found.append(Groups(_models(mesh, shards)))
    return [groups for groups in found if groups.ranks.shape[1] > 1]


def _along(mesh: Mesh, axes: tuple[str, ...]) -> Integers:
    """Return the groups along some axes."""
    order = sorted(AXES, key=lambda axis: axis in axes)
    size = int(np.prod([mesh.degrees[axis] for axis in axes], dtype=int))
    ranks = mesh.ranks.transpose([AXES.index(axis) for axis in order]).reshape(-1, size)
    return np.sort(ranks, axis=1)


def _shard_sets(whole: Integers, shards: int) -> Iterator[Integers]:
    """Yield the sets of neighbours that share one copy, and the sets that hold the same shard.

    Shards divide what one rank would hold into equal parts, so sets are of one size (the checks of
    ZeRO see to that).
    """
    count, size = whole.shape
    copies = whole.reshape(count, size // shards, shards)
    yield copies.reshape(-1, shards)
    yield copies.swapaxes(1, 2).reshape(-1, size // shards)


def _models(mesh: Mesh, shards: int) -> Integers:
    """Return the ranks that together hold a model, with all shards."""
    whole = _along(mesh, REPLICATED)
    sets = Groups(whole.reshape(-1, min(shards, whole.shape[1])))
    models = _along(mesh, MODEL_AXES)
    members: Integers = np.sort(sets.ranks[sets.row[models]].reshape(len(models), -1), axis=1)
    members = members[np.unique(members[:, 0], return_index=True)[1]]  # each model once
    new = np.diff(members, axis=1, prepend=-1) != 0  # and each of its ranks
    found: Integers = members[new].reshape(len(members), -1)
    return found

"""The groups of a plan: every way in which its ranks are divided into groups that communicate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simulator.cluster.placement import Integers, Placement, together
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh
from simulator.strategies.gradients.parameter_layout import MODEL_AXES
from simulator.strategies.gradients.tied import tied_ends
from simulator.workloads.describe import describe
from simulator.workloads.layer import REPLICATED

EXCHANGES = ("expert", "context", "tensor")
"""Axes whose ranks exchange what layers need of each other."""


Order = Literal["none", "ring", "pipeline"]


@dataclass(eq=False)
class Groups:
    """The ranks of a role, divided into groups of equal size; others may be in several of them.

    Attributes:
        ranks: one row a group, its members ascending.
        order: what the order of members means: in a ``ring`` they send to their neighbours, the
            last one to the first; a ``pipeline`` has them in the order of its stages.
        world_size: the number of all ranks; not given: each is in a group.
        row: of each rank its group, of one in several the last; -1: it is in none.
        place: of each rank its position there.
    """

    ranks: Integers
    order: Order = "none"
    world_size: int = 0
    row: Integers = field(init=False)
    place: Integers = field(init=False)

    def __post_init__(self) -> None:
        count, size = self.ranks.shape
        self.world_size = self.world_size or self.ranks.size
        self.row, self.place = np.full((2, self.world_size), -1)
        self.row[self.ranks] = np.arange(count)[:, None]
        self.place[self.ranks] = np.arange(size)

    def together(self, placement: Placement) -> Integers:
        """Return, per level and rank, how many of its group are in its unit; last: of all.

        Args:
            placement: of all ranks, in order. The ranks of a unit follow each other.
        """
        sizes = together(placement.units[:, self.ranks])
        found = np.full((len(sizes) + 1, self.world_size), self.ranks.shape[1])
        found[:-1, self.ranks] = sizes
        return found


def groups_of(experiment: Experiment) -> list[Groups]:
    """Return the groups of a plan that communicate, the ranks of each pipeline among them.

    Where there are servers, each is taken for a partner of all: that tells more ranks apart than
    is needed, never fewer.
    """
    mesh, shards, world_size = experiment.mesh, experiment.parallel.shards, experiment.world_size
    found = [Groups(_along(mesh, ("pipeline",)), "pipeline", world_size)]
    for axis in EXCHANGES:
        order: Order = "ring" if axis == "context" else "none"
        found.append(Groups(_along(mesh, (axis,)), order, world_size))
    summed = [layer.sums_over for layer in describe(experiment)]
    if experiment.parallel.is_local:  # sums are those of one replica
        summed = [tuple(axis for axis in axes if axis != "data") for axes in summed]
        found.append(Groups(_along(mesh, ("data",)), world_size=world_size))
    for axes in dict.fromkeys(summed):
        whole = _along(mesh, axes)
        if experiment.parallel.has_servers:
            sets = _with_each(whole, range(mesh.world_size, world_size))
        else:
            sets = _shard_sets(whole, min(shards, whole.shape[1]))
        found += [Groups(ranks, world_size=world_size) for ranks in sets]
    if (ends := tied_ends(experiment)) is not None:
        found.append(Groups(_at_ends(mesh, shards, ends), world_size=world_size))
    if experiment.workload.needs_gradient_norm:
        found.append(Groups(_models(mesh, shards), world_size=world_size))
    return [groups for groups in found if groups.ranks.shape[1] > 1]


def _along(mesh: Mesh, axes: tuple[str, ...]) -> Integers:
    """Return the groups along some axes."""
    ranks, names, degrees = mesh.ranks, list(AXES), dict(mesh.degrees)
    if "kv" in axes:  # the last part of tensor
        names.append("kv")
        degrees |= {"tensor": degrees["tensor"] // mesh.kv, "kv": mesh.kv}
        ranks = ranks.reshape([degrees[axis] for axis in names])
    order = sorted(names, key=lambda axis: axis in axes)
    size = int(np.prod([degrees[axis] for axis in axes], dtype=int))
    rows = ranks.transpose([names.index(axis) for axis in order]).reshape(-1, size)
    return np.sort(rows, axis=1)


def _with_each(whole: Integers, servers: Iterable[int]) -> Iterator[Integers]:
    """Yield the groups with one server more each, for every server."""
    for server in servers:
        yield np.column_stack([whole, np.full(len(whole), server)])


def _shard_sets(whole: Integers, shards: int) -> Iterator[Integers]:
    """Yield the sets of neighbours that share one copy, and the sets that hold the same shard.

    Shards divide what one rank would hold into equal parts, so sets are of one size (the checks of
    ZeRO see to that).
    """
    count, size = whole.shape
    copies = whole.reshape(count, size // shards, shards)
    yield copies.reshape(-1, shards)
    yield copies.swapaxes(1, 2).reshape(-1, size // shards)


def _at_ends(mesh: Mesh, shards: int, ends: tuple[int, int]) -> Integers:
    """Return the ranks of the first and the last stage that hold the same shard of tied weights."""
    tensor, rows = mesh.degrees["tensor"], mesh.ranks[:, list(ends)]
    halves = np.sort(rows.transpose(4, 1, 0, 2, 3).reshape(tensor, 2, -1), axis=2)
    size = min(shards, halves.shape[2])
    sets = halves.reshape(tensor, 2, -1, size).transpose(0, 3, 1, 2)
    return np.sort(sets.reshape(tensor * size, -1), axis=1)


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

"""Identical peers are simulated once where `Mesh.representatives` can stand for all ranks.

Peers, the ranks at one place of the pipeline, have equal lists up to the names of their partners.
Their times are equal, too, if nothing that a cost depends on tells them apart: the host or device
that they share with others, if they share one; their devices; and which members of their groups
share islands, switches, nodes and network cards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from simulator.cluster.cluster import Cluster
from simulator.cluster.nvlink import ring_count
from simulator.cluster.topology import LANE, Topology
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh
from simulator.workloads.describe import describe

Groups = npt.NDArray[np.int64]
"""Ranks, of shape (places in the pipeline, groups, members): groups of one place may be alike."""


def folds(experiment: Experiment, cluster: Cluster) -> bool:
    """Return whether a prediction simulates the representatives only."""
    mesh = experiment.mesh
    return (
        len(mesh.representatives()) < mesh.world_size
        and not experiment.parallel.transforms
        and cluster.cores is None
        and cluster.profile is None
        and cluster.topology.per_device == 1
        and can_fold(experiment, cluster)
    )


def can_fold(experiment: Experiment, cluster: Cluster) -> bool:
    """Return whether the representatives of an experiment have the times of all their peers."""
    sums = {layer.sums_over for layer in describe(experiment)}
    shards = experiment.parallel.shards
    return peers_are_placed_alike(experiment.mesh, cluster, sums, shards)


def peers_are_placed_alike(
    mesh: Mesh, cluster: Cluster, sums: Collection[tuple[str, ...]] = (), shards: int = 1
) -> bool:
    """Return whether peers have equal devices, and their groups are divided in the same way.

    Groups are those along every axis and along several at once, and the shard sets; what divides
    them are islands, PCIe switches, network cards, nodes and switches. Their ranks are looked at in
    ascending order, and nodes are filled in that order, so where the node changes says how a
    group is divided.

    Args:
        mesh: the mesh of all ranks.
        cluster: the machine they are on.
        sums: sets of axes over which gradients are summed.
        shards: the number of ranks that share one copy of the sums; 1: none do.
    """
    kinds = np.vectorize(cluster.topology.kind)(mesh.ranks)
    if (kinds != kinds[:1, :, :1, :1, :1]).any():
        return False
    topology = cluster.topology
    divided = [_groups(mesh, along) for along in _directions(mesh)]
    for axes in sums:
        groups = _groups(mesh, tuple(axis for axis in mesh.order if axis in axes))
        size = groups.shape[-1]
        if 1 < shards < size:
            if size % shards:
                return False  # the last set is a smaller one
            sets = _shard_sets(groups, shards)
            if any((_spacing(of) != _spacing(of)[:, :1]).any() for of in sets):
                return False
            divided += sets
    locations = np.array([topology.location(rank) for rank in range(mesh.world_size)]).T
    for units in np.unique(locations, axis=0):
        for groups in divided:
            changes = np.diff(units[groups], axis=-1) != 0
            if (changes != changes[:, :1]).any():
                return False
    return topology.mesh is None or _are_joined_alike(mesh, topology, divided)


def _are_joined_alike(mesh: Mesh, topology: Topology, divided: list[Groups]) -> bool:
    """Return whether groups have as many links and rings as those that stand for them.

    This matters in islands without a switch, where devices are joined by direct links. Pairs of
    ranks of a pipeline, which exchange messages, are compared as well.
    """
    islands = np.array([topology.units(rank)[LANE] for rank in range(mesh.world_size)])

    def links(members: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
        assert topology.mesh
        found = []
        for island in np.unique(islands[members]):
            here = tuple(sorted((members[islands[members] == island] - island).tolist()))
            if len(here) > 1:
                pairs = sorted(topology.mesh[a][b] for a, b in combinations(here, 2))
                found.append((ring_count(topology.mesh, here), *pairs))
        return tuple(sorted(found))

    stages = _groups(mesh, ("pipeline",))
    pairs = [stages[..., [a, b]] for a, b in combinations(range(stages.shape[-1]), 2)]
    return all(
        links(group) == links(groups_of_place[0])
        for groups in (*divided, *pairs)
        for groups_of_place in groups
        for group in groups_of_place[1:]
    )


def _directions(mesh: Mesh) -> Iterator[tuple[str, ...]]:
    """Yield every set of axes along which there are groups, the slowest axis first."""
    wide = [axis for axis in mesh.order if mesh.degrees[axis] > 1]
    for count in range(1, len(wide) + 1):
        yield from combinations(wide, count)


def _groups(mesh: Mesh, along: tuple[str, ...]) -> Groups:
    """Return the groups along some axes, members ascending; the representative's come first.

    Along the pipeline all groups are alike, so they count as groups of one place.
    """
    others = [axis for axis in AXES if axis not in along and axis != "pipeline"]
    place = [] if "pipeline" in along else ["pipeline"]
    order = [AXES.index(axis) for axis in (*place, *others, *along)]
    moved = mesh.ranks.transpose(order)
    places = mesh.degrees["pipeline"] if place else 1
    size = int(np.prod([mesh.degrees[axis] for axis in along], dtype=int))
    return moved.reshape(places, -1, size)


def _shard_sets(groups: Groups, shards: int) -> list[Groups]:
    """Return sets of neighbours that share one copy, and sets that hold the same shard."""
    places, _, size = groups.shape
    copies = groups.reshape(places, -1, size // shards, shards)
    same = copies.swapaxes(2, 3)
    return [copies.reshape(places, -1, shards), same.reshape(places, -1, size // shards)]


def _spacing(groups: Groups) -> Groups:
    return groups - groups[..., :1]

"""When identical peers are simulated once: `Mesh.representatives` stand for all ranks.

Peers have equal lists up to the names of their partners. Their times are equal, too, if
nothing that a cost depends on tells them apart. That is the host or device they share with others,
if they share one, their devices, and which members of their groups share what.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.nvlink import ring_count
from simulator.cluster.topology import LANE, Topology
from simulator.experiment.mesh import AXES, Mesh

COMPLETE_UP_TO = 64
"""Ranks. Small programs are simulated whole, so that every rank can be looked at."""


def folds(mesh: Mesh, cluster: Cluster) -> bool:
    """Whether a prediction of `mesh` on `cluster` leaves out all but the representatives."""
    return (
        mesh.world_size > COMPLETE_UP_TO
        and len(mesh.representatives()) < mesh.world_size
        and cluster.cores is None
        and cluster.topology.per_device == 1
        and peers_are_placed_alike(mesh, cluster)
    )


def peers_are_placed_alike(mesh: Mesh, cluster: Cluster) -> bool:
    """Whether peers have equal devices, and their groups are divided in the same way among
    islands, PCIe switches, network cards, nodes and switches.

    Groups along every axis and along several at once, as strategies need them. Their ranks are
    looked at in ascending order, and nodes are filled in that order, so where the node changes
    says how a group is divided.
    """
    kinds = np.vectorize(cluster.topology.kind)(mesh.ranks)
    if (kinds != kinds[:1, :, :1, :1, :1]).any():
        return False
    topology = cluster.topology
    places = np.array([topology.location(rank) for rank in range(mesh.world_size)]).T
    alike = all(_divided_alike(mesh, units[mesh.ranks]) for units in np.unique(places, axis=0))
    return alike and (topology.mesh is None or _joined_alike(mesh, topology))


def _divided_alike(mesh: Mesh, units: np.ndarray) -> bool:
    """Whether groups along the same axes change their unit at the same places; `units` has
    the shape of the mesh.
    """
    for along in _directions(mesh):
        groups = _groups(units, along)
        changes = np.diff(groups, axis=-1) != 0
        if (changes != changes[_peers_of_first(along)]).any():
            return False
    return True


def _joined_alike(mesh: Mesh, topology: Topology) -> bool:
    """In islands without a switch: whether every two ranks have as many links between them
    as the two that stand for them, and all groups as many rings.
    """
    places = np.array([topology.units(rank)[LANE] for rank in range(mesh.world_size)])

    def links(members: np.ndarray) -> tuple[tuple[int, ...], ...]:
        assert topology.mesh
        found = []
        for island in np.unique(places[members]):
            here = tuple(sorted((members[places[members] == island] - island).tolist()))
            if len(here) > 1:
                pairs = sorted(topology.mesh[a][b] for a, b in combinations(here, 2))
                found.append((ring_count(topology.mesh, here), *pairs))
        return tuple(sorted(found))

    for along in _directions(mesh):
        groups = _groups(mesh.ranks, along)
        first = np.broadcast_to(groups[_peers_of_first(along)], groups.shape)
        size = groups.shape[-1]
        pairs = zip(groups.reshape(-1, size), first.reshape(-1, size), strict=True)
        if any(links(mine) != links(theirs) for mine, theirs in pairs):
            return False
    stages = _groups(mesh.ranks, ("pipeline",)).reshape(-1, mesh.degrees["pipeline"])
    return all(
        links(stages[peer, [a, b]]) == links(stages[0, [a, b]])
        for peer in range(len(stages))
        for a, b in combinations(range(stages.shape[1]), 2)
    )


def _directions(mesh: Mesh) -> Iterator[tuple[str, ...]]:
    """Every set of axes along which there are groups."""
    wide = [axis for axis in mesh.order if mesh.degrees[axis] > 1]
    for count in range(1, len(wide) + 1):
        yield from combinations(wide, count)


def _groups(values: np.ndarray, along: tuple[str, ...]) -> np.ndarray:
    """`values`, of the shape of the mesh, with the members of a group in the last dimension."""
    places = [AXES.index(axis) for axis in along]
    moved = np.moveaxis(values, places, range(-len(along), 0))
    return moved.reshape(*moved.shape[: -len(along)], -1)


def _peers_of_first(along: tuple[str, ...]) -> tuple[slice, ...]:
    """Selects the groups that stand for their peers."""
    others = [axis for axis in AXES if axis not in along]
    return tuple(slice(None if axis == "pipeline" else 1) for axis in others)

"""When identical peers are simulated once: `Mesh.representatives` stand for all ranks.

Peers have equal lists up to the names of their partners. Their times are equal, too, if
nothing that a cost depends on tells them apart. That is the machine they share with
others, if they share one, and which members of their groups are on one node.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from simulator.cluster import Cluster
from simulator.mesh import AXES, Mesh

COMPLETE_UP_TO = 64
"""Ranks. Small programs are simulated whole, so that every rank can be looked at."""


def folds(mesh: Mesh, cluster: Cluster) -> bool:
    """Whether a prediction of `mesh` on `cluster` leaves out all but the representatives."""
    return (
        mesh.world_size > COMPLETE_UP_TO
        and len(mesh.representatives()) < mesh.world_size
        and cluster.cores is None
        and peers_are_placed_alike(mesh, cluster)
    )


def peers_are_placed_alike(mesh: Mesh, cluster: Cluster) -> bool:
    """Whether the groups of peers are divided among nodes in the same way.

    Groups along every axis and along several at once, as strategies need them. Their ranks are
    looked at in ascending order, and nodes are filled in that order, so where the node changes
    says how a group is divided.
    """
    nodes = mesh.ranks // cluster.devices_per_node
    wide = [axis for axis in mesh.order if mesh.degrees[axis] > 1]
    for count in range(1, len(wide) + 1):
        for along in combinations(wide, count):
            places = [AXES.index(axis) for axis in along]
            groups = np.moveaxis(nodes, places, range(-count, 0))
            groups = groups.reshape(*groups.shape[:-count], -1)
            changes = np.diff(groups, axis=-1) != 0
            others = [axis for axis in AXES if axis not in along]
            first = tuple(slice(None if axis == "pipeline" else 1) for axis in others)
            if (changes != changes[first]).any():
                return False
    return True

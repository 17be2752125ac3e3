"""The extent of a group of ranks in a topology, on which the cost of a collective depends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cluster.nvlink import ring_count, slowest_pair
from simulator.cluster.placement import Placement, together
from simulator.cluster.topology import LANE, PORT, Topology


@dataclass(frozen=True)
class Extent:
    """The place of a group of ranks in a topology.

    Attributes:
        size: ranks.
        counts: per level, units that have members; a last 1 for everything.
        members: per level, the most members that a unit has.
        even: units of one level have equally many members.
        load: seconds that a byte across the boundary of every unit of a level costs a
            resource at full bandwidth; one row per resource (equal ones once), one column
            per level.
    """

    size: int
    counts: tuple[int, ...]
    members: tuple[int, ...]
    even: bool
    load: np.ndarray

    def fanout(self, level: int) -> int:
        """Return the number of units of `level` in a unit of the next level."""
        return -(-self.counts[level] // self.counts[level + 1])


def extent_of(topology: Topology, group: tuple[int, ...], pattern: str = "ring") -> Extent:
    """Return how `group` lies in `topology`.

    Args:
        topology: where the ranks are.
        group: ranks.
        pattern: ring, tree or pairs: who talks to whom. It matters in a mesh only.
    """
    placement = Placement(topology, group)
    sizes = together(placement.units)
    counts = 1 + (np.diff(placement.units) != 0).sum(axis=1)
    even = bool((sizes == sizes[:, :1]).all())
    shares = placement.shares()
    load = shares.rows / shares.speeds[:, None]
    other = (load != np.roll(load, 1, axis=0)).any(axis=1)  # neighbours are mostly alike
    load = np.unique(np.concatenate([load[:1], load[other]]), axis=0)
    if topology.mesh and topology.island and load.any():
        seconds = _mesh_seconds(
            topology, list(zip(*placement.units.tolist(), strict=True)), pattern
        )
        load[:, PORT] = np.where(load[:, PORT] > 0, seconds, 0.0)
    return Extent(len(group), (*counts.tolist(), 1), tuple(sizes.max(axis=1).tolist()), even, load)


def _mesh_seconds(topology: Topology, units: list[tuple[int, ...]], pattern: str) -> float:
    """Return the seconds that a byte out of one device takes in the slowest island."""
    assert topology.mesh and topology.island
    link = topology.island.bandwidth
    fallback = topology.pcie.bandwidth if topology.pcie else 0.0
    slowest = 0.0
    for island in sorted({unit[LANE] for unit in units}):
        here = {unit[PORT] - island for unit in units if unit[LANE] == island}
        positions = tuple(sorted(here))
        if len(positions) == 1:
            continue
        if pattern == "pairs":
            speed = slowest_pair(topology.mesh, positions, link, fallback)
        elif rings := ring_count(topology.mesh, positions):
            speed = rings * link
        else:  # a chain, up and down; what goes round in a ring takes PCIe
            speed = 2 * link if pattern == "tree" else fallback
        slowest = max(slowest, 1 / speed)
    return slowest

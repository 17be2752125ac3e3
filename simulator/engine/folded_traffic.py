"""Traffic of all ranks through the links of those that have a list, in a folded program.

Ranks without a list do the same as others at the same time. So what groups of one class take of a
resource together is what the activities that stand for them take. Every resource has one like it
next to a rank with a list, so the others need not be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.placement import Family, Floats, Integers, Placement
from simulator.cluster.resource import Direction, Resource
from simulator.engine.rank_classes import Codes, codes_of_groups
from simulator.engine.replica_folding import Folding
from simulator.program.operation_columns import Formula
from simulator.program.operations import Op

Ranks = tuple[int, ...]


class FoldedTraffic:
    """Adds up what the activities of a folded program take of links for all that they stand for.

    Args:
        folding: which ranks stand for all.
        cluster: where the ranks are.
        members: the ranks that have a list.
    """

    def __init__(self, folding: Folding, cluster: Cluster, members: Sequence[int]) -> None:
        self.folding, self.costs, self.topology = folding, cluster.communication, cluster.topology
        self.members = np.array(members)
        regions = folding.placement.units[-1]  # what two ranks share lies within one
        self._near = np.flatnonzero(np.isin(regions, regions[self.members]))
        self._number_of: dict[tuple[Family, int], int] = {}
        self._links: list[Resource] = []
        self._used = self._resources_of_near()
        self._known = frozenset(self._links)
        self._codes: dict[int, Codes] = {}
        self._together: dict[int, Integers] = {}
        self._shares: dict[tuple[int, int], Floats] = {}
        self._passing: dict[tuple[Op, Ranks], dict[Resource, float]] = {}

    def taken(self, op: Op, group: Ranks, nbytes: int) -> dict[Resource, float]:
        """Return the bytes through every link, in each direction.

        A SEND is a message from the first of `group` to the second.
        """
        if op.row.cost is Formula.MESSAGE:
            if (op, group) not in self._passing:
                self._passing[op, group] = self._messages(op, group)
            return {way: count * nbytes for way, count in self._passing[op, group].items()}
        if max(group) >= self.folding.mesh.world_size:  # with a server, which has no like
            taken = self.costs.traffic(op, group, nbytes)
            return {way: n for way, n in taken.items() if way.link in self._known}
        volumes = np.array(self.costs.cost(op, group, nbytes).volumes)
        found = {}
        for link, passing in zip(self._links, (self._rows(group) @ volumes).tolist(), strict=True):
            if passing:
                found[link.going(Direction.OUT)] = found[link.going(Direction.IN)] = passing
        return found

    def _resources_of_near(self) -> list[list[Integers]]:
        """Return, per level, which resources of ranks with a list each near rank uses; -1: none."""
        mine = Placement(self.topology, self.members)
        near = Placement(self.topology, self._near)
        used: list[list[Integers]] = []
        for level in range(self.topology.num_levels):
            for place, boundary in enumerate(mine.boundary(level)):
                for rank, number in zip(
                    mine.ranks.tolist(), boundary.numbers.tolist(), strict=True
                ):
                    key = boundary.family, number
                    if number >= 0 and key not in self._number_of:
                        self._number_of[key] = len(self._links)
                        self._links += self.topology.resources([(rank, level, place)])
        for level in range(self.topology.num_levels):
            used.append([])
            for boundary in near.boundary(level):
                found = [
                    self._number_of.get((boundary.family, number), -1)
                    for number in boundary.numbers.tolist()
                ]
                used[-1].append(np.array(found))
        return used

    def _rows(self, group: Ranks) -> Floats:
        """Return the shares of the bytes that leave units of each level, per resource."""
        number, row = self._find(group)
        if (number, row) not in self._shares:
            alike, standing = self._alike(number, row)
            divided = self.folding.groups[number]
            if number not in self._together:
                together = divided.together(self.folding.placement)
                self._together[number] = together[:, self._near]
            together = self._together[number]
            rows = divided.row[self._near]
            chosen = alike[rows] & (rows >= 0)
            found = np.zeros((len(self._links), len(self._used)))
            for level, boundaries in enumerate(self._used):
                leaving = chosen & (together[level + 1] > together[level])
                for resources in boundaries:
                    using = leaving & (resources >= 0)
                    share = 1 / together[level][using]
                    found[:, level] += np.bincount(resources[using], share, len(self._links))
            self._shares[number, row] = found / standing
        return self._shares[number, row]

    def _messages(self, op: Op, group: Ranks) -> dict[Resource, float]:
        """Return how many messages pass each resource."""
        near = np.zeros(len(self.folding.list_of), dtype=bool)
        near[self._near] = True
        hop = op.row.hop
        if hop == 0:
            classes, stages = self.folding.classes, self.folding.mesh.ranks
            pipeline = [self.folding.mesh.coordinate(rank)["pipeline"] for rank in group]
            sources, targets = (stages[:, place].ravel() for place in pipeline)
            alike = classes[sources] == classes[group[0]]
            standing = int((classes[self.members] == classes[group[0]]).sum())
        else:
            number, row = self._find(group)
            divided = self.folding.groups[number]
            of_rows, standing = self._alike(number, row)
            sources, targets = divided.ranks, np.roll(divided.ranks, -abs(hop), axis=1)
            alike = np.broadcast_to(of_rows[:, None], sources.shape)
            if hop < 0:
                sources, targets = targets, sources
        chosen = alike & (near[sources] | near[targets])
        found: dict[Resource, float] = {}
        for pair in zip(sources[chosen].tolist(), targets[chosen].tolist(), strict=True):
            for way, _ in self.topology.path(*pair)[1]:
                if way.link in self._known:
                    found[way] = found.get(way, 0.0) + 1 / standing
        return found

    def _find(self, group: Ranks) -> tuple[int, int]:
        """Return which groups of the plan, and which of them, a task's group is."""
        for number, divided in enumerate(self.folding.groups):
            row = int(divided.row[group[0]])
            if divided.ranks.shape[1] == len(group) and (divided.ranks[row] == group).all():
                return number, row
        raise AssertionError(f"no groups of the plan have {group}")

    def _alike(self, number: int, row: int) -> tuple[Integers, int]:
        """Return which groups do the same as one, and how many of these the program has."""
        divided = self.folding.groups[number]
        if number not in self._codes:
            self._codes[number] = codes_of_groups(
                divided, self.folding.placement, self.folding.classes
            )
        alike = self._codes[number] == self._codes[number][row]
        rows = divided.row[self.members]
        return alike, int(alike[np.unique(rows[rows >= 0])].sum())

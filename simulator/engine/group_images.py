"""Groups of ranks that do the same as one group, where identical ranks are simulated once."""

from __future__ import annotations

from simulator.experiment.mesh import Mesh

Ranks = tuple[int, ...]


class GroupImages:
    """Finds the groups of a mesh that do the same as one of them at the same time.

    They are its images when its first rank is replaced by one of its peers, the ranks with the
    same place in the pipeline.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def of_message(self, source: int, target: int) -> set[Ranks]:
        """Return all pairs that send the same message from one stage to another."""
        return set(zip(self._peers(source), self._peers(target), strict=True))

    def of_group(self, group: Ranks) -> set[Ranks]:
        """Return all groups that meet for the same collective, `group` included.

        A group may be a part of all ranks along its axes, as a shard set is. Its images are the
        parts of the same form there and in every other set of ranks along these axes.
        """
        if len(group) < 2:
            return {group}
        axes = self.mesh.axes_of(group)
        whole = self.mesh.group(group[0], *axes)
        position_of = {rank: position for position, rank in enumerate(whole)}
        parts = equal_parts([position_of[rank] for rank in group], len(whole))
        wholes: list[Ranks] = []
        seen: set[int] = set()
        for peer in self._peers(group[0]):
            if peer not in seen:
                wholes.append(self.mesh.group(peer, *axes))
                seen.update(wholes[-1])
        return {tuple(ranks[position] for position in part) for ranks in wholes for part in parts}

    def _peers(self, rank: int) -> list[int]:
        """Return the ranks at the same place in the pipeline, in the order of the mesh."""
        peers: list[int] = (
            self.mesh.ranks[:, self.mesh.coordinate(rank)["pipeline"]].ravel().tolist()
        )
        return peers


def equal_parts(positions: list[int], count: int) -> list[list[int]]:
    """Return the parts of ``range(count)`` of which `positions` is one.

    Positions are evenly spaced: a, a + s, a + 2s, … The parts have the same size and spacing and
    cover everything once.
    """
    size = len(positions)
    if size == count:
        return [positions]
    step = positions[1] - positions[0]
    return [
        [block + offset + step * index for index in range(size)]
        for block in range(0, count, step * size)
        for offset in range(step)
    ]

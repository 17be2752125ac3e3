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

        They have the same distances between their ranks, and every peer is in one of them. So the
        first rank that is in none yet is the first of another one.
        """
        distances = [rank - group[0] for rank in group]
        images: set[Ranks] = set()
        seen: set[int] = set()
        for peer in sorted(self._peers(group[0])):
            if peer not in seen:
                image = tuple([peer + distance for distance in distances])
                images.add(image)
                seen.update(image)
        return images

    def _peers(self, rank: int) -> list[int]:
        """Return the ranks at the same place in the pipeline, in the order of the mesh."""
        peers: list[int] = (
            self.mesh.ranks[:, self.mesh.coordinate(rank)["pipeline"]].ravel().tolist()
        )
        return peers

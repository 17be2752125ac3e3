"""Roles: groups of ranks that do different work in one job, each with a mesh of its own.

Ranks are counted role by role. The product of the degrees of a plan is the mesh of its trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.experiment.mesh import Mesh

TRAINER, SERVER = "trainer", "server"


@dataclass(frozen=True, eq=False)
class Role:
    """Ranks that do one kind of work.

    Attributes:
        name: of one of them: ``trainer``, ``server``.
        mesh: where they are to each other; it counts them from 0.
        first_rank: the global rank of the first of them; the others follow.
    """

    name: str
    mesh: Mesh
    first_rank: int = 0

    @property
    def ranks(self) -> range:
        """The global ranks that have this role."""
        return range(self.first_rank, self.first_rank + self.mesh.world_size)

    def coordinate(self, rank: int) -> dict[str, int]:
        """Return where a global rank is on each axis of the mesh of this role."""
        return self.mesh.coordinate(rank - self.first_rank)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "name": self.name,
            "first_rank": self.first_rank,
            "order": list(self.mesh.order),
            "degrees": self.mesh.degrees,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Role:
        """Return the role that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: something else wrote it.
        """
        return cls(str(data["name"]), Mesh(data["order"], **data["degrees"]), data["first_rank"])


def role_among(roles: Sequence[Role], rank: int) -> Role:
    """Return which of some roles a global rank has.

    Raises:
        ValueError: there is no such rank.
    """
    for role in roles:
        if rank in role.ranks:
            return role
    raise ValueError(f"rank {rank} is out of bounds: there are {roles[-1].ranks.stop}")


def name_of_rank(roles: Sequence[Role], rank: int) -> str:
    """Return what people call a rank: ``rank 3``, among several roles ``rank 3 (server 0)``."""
    if len(roles) < 2:
        return f"rank {rank}"
    role = role_among(roles, rank)
    return f"rank {rank} ({role.name} {rank - role.first_rank})"

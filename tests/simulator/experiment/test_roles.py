"""Ranks are counted role by role, each role with a mesh of its own."""

from __future__ import annotations

import json

import pytest

from simulator import load
from simulator.experiment.mesh import Mesh
from simulator.experiment.roles import Role, name_of_rank, role_among

PLAIN = ["pipeline=2", "data=3"]
SERVED = [*PLAIN, "data_style=parameter-server", "servers=2"]


def test_a_plan_without_servers_has_trainers_only() -> None:
    experiment = load(None, PLAIN)
    (trainers,) = experiment.roles
    assert (trainers.name, trainers.mesh, trainers.ranks) == ("trainer", experiment.mesh, range(6))
    assert experiment.world_size == 6
    assert name_of_rank(experiment.roles, 5) == "rank 5"


def test_servers_come_behind_the_trainers() -> None:
    experiment = load(None, SERVED)
    trainers, servers = experiment.roles
    assert (trainers.ranks, servers.ranks) == (range(6), range(6, 8))
    assert experiment.world_size == 8
    assert experiment.mesh.world_size == 6
    for rank in range(6):
        assert experiment.role_of(rank) == (trainers, experiment.mesh.coordinate(rank))
    role, coordinate = experiment.role_of(7)
    assert (role, coordinate["data"], coordinate["pipeline"]) == (servers, 1, 0)
    names = [name_of_rank(experiment.roles, rank) for rank in (0, 6, 7)]
    assert names == ["rank 0 (trainer 0)", "rank 6 (server 0)", "rank 7 (server 1)"]


@pytest.mark.parametrize("rank", [-1, 8])
def test_a_rank_that_there_is_not_has_no_role(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is out of bounds: there are 8"):
        load(None, SERVED).role_of(rank)


def test_a_role_is_the_same_after_json() -> None:
    role = Role("server", Mesh(("tensor", "data", "pipeline", "expert", "context"), data=2), 3)
    found = Role.from_json(json.loads(json.dumps(role.to_json())))
    assert (found.name, found.ranks, found.mesh.order) == (role.name, role.ranks, role.mesh.order)
    assert role_among([found], 4).coordinate(4) == role.coordinate(4)

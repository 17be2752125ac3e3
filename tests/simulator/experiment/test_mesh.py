"""Which ranks form which group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.experiment.mesh import AXES, Mesh


def test_groups_by_hand() -> None:
    """Tensor innermost, then pipeline, data outermost: ranks 0 and 1 share a node."""
    mesh = Mesh(data=2, pipeline=2, tensor=2)
    assert mesh.groups("tensor") == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert mesh.groups("pipeline") == [(0, 2), (1, 3), (4, 6), (5, 7)]
    assert mesh.groups("data") == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert mesh.groups("context") == [(rank,) for rank in range(8)]
    assert mesh.coordinate(6) == dict(zip(AXES, (1, 1, 0, 0, 0), strict=True))


def test_neighbours_on_tensor_have_the_same_keys() -> None:
    mesh = Mesh(data=2, tensor=4, kv=2)
    assert mesh.groups("kv") == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert mesh.groups("data", "kv") == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert mesh.groups("tensor", "kv") == mesh.groups("tensor")
    assert mesh.wide == {"data", "tensor", "kv"}
    assert Mesh(data=2, tensor=4).groups("kv") == [(rank,) for rank in range(8)]


@given(st.lists(st.integers(1, 3), min_size=5, max_size=5))
def test_groups_partition_the_ranks_and_differ_in_one_coordinate(sizes: list[int]) -> None:
    mesh = Mesh(**dict(zip(AXES, sizes, strict=True)))
    for axis, size in zip(AXES, sizes, strict=True):
        groups = mesh.groups(axis)
        assert sorted(sum(groups, ())) == list(range(mesh.world_size))
        for group in groups:
            assert len(group) == size
            places = [mesh.coordinate(rank) for rank in group]
            assert [place.pop(axis) for place in places] == list(range(size))
            assert all(place == places[0] for place in places)
            assert all(mesh.group(rank, axis) == group for rank in group)


@pytest.mark.parametrize("rank", [-1, 4])
def test_no_such_rank(rank: int) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        Mesh(data=4).coordinate(rank)

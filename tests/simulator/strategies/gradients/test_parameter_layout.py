"""Which ranks share a bucket, by hand on small meshes."""

from __future__ import annotations

import pytest

from simulator.experiment.mesh import Mesh
from simulator.strategies.gradients.parameter_layout import ParameterLayout, shard_sets
from simulator.strategies.stages.bucket_contents import GradientAxes

DATA = GradientAxes(("data",), ())


def test_shard_sets_are_neighbours() -> None:
    assert shard_sets((0, 2, 4, 6), 2) == [(0, 2), (4, 6)]
    assert shard_sets((0, 2), 4) == [(0, 2)]


@pytest.mark.parametrize(
    ("size", "replicas", "shards"),
    [(1, (0, 2, 4, 6), ()), (2, (0, 4), (0, 2)), (4, (0,), (0, 2, 4, 6))],
)
def test_replicas_and_shards_of_a_rank(
    size: int, replicas: tuple[int, ...], shards: tuple[int, ...]
) -> None:
    layout = ParameterLayout(Mesh(data=4, tensor=2), size)
    assert layout.bucket_ranks(DATA, 0) == (replicas, shards, 1)


def test_parameters_that_tensor_ranks_copy_are_counted() -> None:
    layout = ParameterLayout(Mesh(data=2, tensor=2), 1)
    assert layout.bucket_ranks(GradientAxes(("data",), ("tensor",)), 0).copies == 2


def test_the_ranks_of_a_model() -> None:
    assert ParameterLayout(Mesh(data=2, pipeline=2, tensor=2), 1).model_ranks(5) == (4, 5, 6, 7)
    assert ParameterLayout(Mesh(data=2, pipeline=2), 2).model_ranks(0) == (0, 1, 2, 3)

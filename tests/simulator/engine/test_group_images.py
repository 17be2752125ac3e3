"""Groups that do the same elsewhere are found from one of them."""

from __future__ import annotations

import pytest

from simulator.engine.group_images import GroupImages, equal_parts
from simulator.experiment.mesh import Mesh


@pytest.mark.parametrize(
    ("positions", "count", "expected"),
    [
        ([0, 1], 4, [[0, 1], [2, 3]]),
        ([1, 3], 4, [[0, 2], [1, 3]]),
        ([0, 1, 2], 3, [[0, 1, 2]]),
        ([0, 2], 8, [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_groups_that_divide_alike(positions, count, expected) -> None:
    assert sorted(equal_parts(positions, count)) == expected


def test_a_message_has_an_image_for_every_peer() -> None:
    """Ranks are counted along tensor, then pipeline, then data."""
    images = GroupImages(Mesh(data=2, pipeline=2, tensor=2))
    assert images.of_message(0, 2) == {(0, 2), (1, 3), (4, 6), (5, 7)}
    assert images.of_message(2, 0) == {(2, 0), (3, 1), (6, 4), (7, 5)}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ((0,), {(0,)}),
        ((0, 1), {(0, 1), (4, 5), (8, 9), (12, 13)}),  # tensor, of stage 0
        ((2, 3), {(2, 3), (6, 7), (10, 11), (14, 15)}),  # and of stage 1
        ((0, 4, 8, 12), {(0, 4, 8, 12), (1, 5, 9, 13)}),  # data
        ((0, 4), {(0, 4), (8, 12), (1, 5), (9, 13)}),  # shard sets of two neighbours
        ((0, 8), {(0, 8), (4, 12), (1, 9), (5, 13)}),  # and those that hold the same shard
    ],
)
def test_a_group_has_an_image_in_every_set_of_ranks(group, expected) -> None:
    assert GroupImages(Mesh(data=4, pipeline=2, tensor=2)).of_group(group) == expected

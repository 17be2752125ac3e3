"""Groups that do the same elsewhere are found from one of them."""

from __future__ import annotations

import pytest

from simulator.engine.group_images import GroupImages
from simulator.experiment.mesh import Mesh


def test_a_message_has_an_image_for_every_peer() -> None:
    """Ranks are counted along tensor, then pipeline, then data."""
    images = GroupImages(Mesh(data=2, pipeline=2, tensor=2))
    assert images.of_message(0, 2) == {(0, 2), (1, 3), (4, 6), (5, 7)}
    assert images.of_message(2, 0) == {(2, 0), (3, 1), (6, 4), (7, 5)}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ((0, 1), {(0, 1), (4, 5), (8, 9), (12, 13)}),  # tensor, of stage 0
        ((2, 3), {(2, 3), (6, 7), (10, 11), (14, 15)}),  # and of stage 1
        ((0, 4, 8, 12), {(0, 4, 8, 12), (1, 5, 9, 13)}),  # data
        ((0, 4), {(0, 4), (8, 12), (1, 5), (9, 13)}),  # shard sets of two neighbours
        ((0, 8), {(0, 8), (4, 12), (1, 9), (5, 13)}),  # and those that hold the same shard
    ],
)
def test_a_group_has_an_image_in_every_set_of_ranks(group, expected) -> None:
    assert GroupImages(Mesh(data=4, pipeline=2, tensor=2)).of_group(group) == expected


def test_shard_sets_need_not_be_whole_axes() -> None:
    """Sets of 6 of the 24 ranks that a sum over data, context and tensor ranks has."""
    images = GroupImages(Mesh(data=3, context=2, tensor=4))
    sets = {tuple(range(first, first + 6)) for first in (0, 6, 12, 18)}
    assert images.of_group((0, 1, 2, 3, 4, 5)) == sets
    same = {tuple(range(first, 24, 6)) for first in range(6)}
    assert images.of_group((0, 6, 12, 18)) == same

"""Resources are the same object where they are equal, and written as people read them."""

from __future__ import annotations

import copy
import pickle

from simulator.cluster.resource import Direction, Resource, ResourceKind

CARD = Resource(ResourceKind.NIC, 0, 1)
RESOURCES = {
    Resource(ResourceKind.CORES, 0): "cores:0",
    Resource(ResourceKind.DEVICE, 12): "device:12",
    CARD: "nic:0.1",
    CARD.going(Direction.OUT): "out:nic:0.1",
    Resource(ResourceKind.UPLINK, 1, 2, Direction.IN): "in:uplink:1.2",
}


def test_the_text_is_short() -> None:
    assert [str(resource) for resource in RESOURCES] == list(RESOURCES.values())
    assert f"{CARD}" == "nic:0.1"


def test_the_ways_of_a_link_are_told_apart() -> None:
    out, into = CARD.going(Direction.OUT), CARD.going(Direction.IN)
    assert len({CARD, out, into}) == 3
    assert out.link == into.link == CARD.link == CARD
    assert out.going(Direction.IN) == into


def test_equal_resources_are_one_object() -> None:
    """Also those that come from another process."""
    out = CARD.going(Direction.OUT)
    assert out is Resource(ResourceKind.NIC, 0, 1, Direction.OUT)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(out, protocol)) is out
    assert copy.deepcopy(out) is copy.copy(out) is out

"""Bytes over links: the closed forms of volume."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.analysis.link_bytes import LinkBytes

N = 4
PLAN = ["model=mlp", "pipeline=1", f"data={N}", "preset=aws-p3-2xlarge", "algorithm=ring"]


def links(*plan: str) -> dict[str, tuple[int, int]]:
    experiment = load(None, [*PLAN, *plan])
    found = predict(experiment, program=lower(experiment)).links
    assert found
    return {row.link: (row.out_bytes, row.in_bytes) for row in found}


def parameters() -> int:
    return 4 * predict(load(None, PLAN)).metrics.parameters


def test_asynchronous_workers_send_and_receive_all_and_the_server_what_all_do() -> None:
    size, steps = parameters(), 3
    found = links("data_style=asynchronous", f"horizon={steps}")
    assert found.pop(f"nic:{N}.0") == (N * steps * size, N * steps * size)
    assert set(found.values()) == {(steps * size, steps * size)}


def test_gossip_sends_the_parameters_to_each_neighbour() -> None:
    size, steps = parameters(), 2
    gossip = ["data_style=gossip", f"horizon={steps}", "jitter=lognormal", "jitter_spread=0.1"]
    assert set(links(*gossip, "topology=one-peer-exponential").values()) == {
        (steps * size, steps * size)
    }
    assert set(links(*gossip, "topology=ring").values()) == {(2 * steps * size, 2 * steps * size)}


def test_a_ring_sends_its_share_of_the_gradients() -> None:
    """2(n-1)/n of them."""
    (ways,) = set(links().values())
    assert ways == pytest.approx((2 * (N - 1) / N * parameters(),) * 2, rel=1e-6)


def test_servers_that_are_the_trainers_send_what_a_ring_does() -> None:
    """2(n-1)/n of the parameters, each way and rank: a reduce and a broadcast of every share."""
    shared = links("data_style=parameter-server", "servers=shared", "bucket_mb=0.5")
    for link, ways in links().items():
        assert shared[link] == pytest.approx(ways)


def test_folded_programs_do_not_tell() -> None:
    assert predict(load(None, PLAN)).links is None
    assert LinkBytes("nic:0", 1, 2).to_json() == {"link": "nic:0", "out_bytes": 1, "in_bytes": 2}

"""The measured distance of replicas is that of the replicas of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from replicas import mix, train_apart
from simulator.strategies.gradients.topologies import topology_named

KEYS = {"data": 4, "horizon": 4, "iterations": 2, "warmup": 0}
GOSSIP = KEYS | {"data_style": "gossip", "topology": "ring"}
LOCAL = KEYS | {"data_style": "local-sgd", "sync_period": 2}


def expected(experiment: Any) -> list[float]:
    """Distances in the steps of the last iteration."""
    horizon, count = experiment.run.horizon, experiment.parallel.data
    topology = topology_named(experiment.parallel.topology or "complete", count)
    local = experiment.parallel.data_style == "local-sgd"

    def exchange(step: int, values: Any) -> None:
        if not local or step % 2:
            mix(topology.matrix(step), values)

    _, _, before = train_apart(experiment, torch.optim.SGD, exchange)
    found = []
    for replicas in before[-horizon:]:
        stacked = torch.stack(replicas)
        apart = (stacked - stacked.mean(dim=0)).square().sum() / count
        found.append(float(apart.sqrt()))
    return found


@pytest.mark.parametrize("keys", [GOSSIP, LOCAL], ids=["gossip", "local"])
def test_the_distance_of_each_step_is_that_of_replicas_in_one_process(run, keys) -> None:
    ran = run(**keys)
    *steps, end = ran.measurement.consensus_distance
    assert steps == pytest.approx(expected(ran.experiment), rel=1e-9, abs=1e-13)
    assert max(steps) > 0
    stacked = torch.stack(
        [torch.cat([p.flatten() for p in replica.values()]) for replica in ran.parameters]
    )
    last = float(((stacked - stacked.mean(dim=0)).square().sum() / 4).sqrt())
    assert end == pytest.approx(last, rel=1e-9, abs=1e-13)
    if keys is LOCAL:
        assert steps[0] == pytest.approx(0, abs=1e-13)
        assert steps[2] == pytest.approx(0, abs=1e-13)
        assert end == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize(
    "more", [{"pipeline": 2}, {"tensor": 2}, {"context": 2}], ids=lambda more: next(iter(more))
)
def test_copies_within_a_replica_count_once(run, more) -> None:
    two = {"data": 2, "sync_period": 2, "horizon": 2, "data_style": "local-sgd", "iterations": 1}
    whole, parts = run(**two), run(**two, **more)
    assert parts.measurement.consensus_distance == pytest.approx(
        whole.measurement.consensus_distance, rel=1e-8, abs=1e-13
    )


def test_equal_replicas_have_none(run) -> None:
    assert run(**KEYS).measurement.consensus_distance is None

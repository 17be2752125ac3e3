"""Any program that is accepted ends in both interpreters, and trains as one process does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simulator.experiment.section import ExperimentError
from simulator.prediction import predict
from simulator.strategies.schedules.checks import updates_within_a_step

MESHES = [
    {"data": 2},
    {"pipeline": 2},
    {"tensor": 2},
    {"data": 2, "pipeline": 2},
    {"data": 2, "tensor": 2},
    {"pipeline": 4},
    {"pipeline": 2, "tensor": 2},
    {"data": 2, "data_style": "parameter-server"},
    {"data": 2, "data_style": "parameter-server", "servers": 2},
    {"data": 3, "data_style": "parameter-server"},
    {"data": 2, "data_style": "asynchronous"},
    {"data": 3, "data_style": "asynchronous", "policy": "random-order"},
    {"data": 2, "data_style": "asynchronous", "servers": 2},
    {"data": 2, "data_style": "stale-synchronous", "staleness_bound": 0, "servers": 2},
    {"data": 3, "data_style": "stale-synchronous", "staleness_bound": 1},
    {"data": 3, "data_style": "soft-synchronous", "gradients_per_update": 2},
    {"data": 3, "data_style": "soft-synchronous", "backup_workers": 1},
    {"data": 2, "pipeline": 2, "data_style": "local-sgd", "sync_period": 1},
    {"data": 3, "data_style": "local-sgd", "sync_period": 1},
    {"data": 2, "pipeline": 2, "data_style": "gossip", "topology": "complete"},
    {"data": 4, "data_style": "gossip", "topology": "complete"},
]


ONE_PROCESS = ("model", "layers", "skips", "microbatches", "optimizer", "warmup")
"""Keys that say what is trained, not how it is divided."""


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,  # a run takes its time: the same ones wherever the suite is run
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_it_ends_and_trains_as_one_process_does(
    data: Any,
    run: Callable[..., Any],
    experiment: Callable[..., Any],
    reference: Callable[..., Any],
) -> None:
    keys: dict[str, Any] = {"model": "mlp", "layers": 4, "pipeline": 1, "warmup": 0}
    keys |= data.draw(st.sampled_from(MESHES))
    keys |= {
        "microbatches": data.draw(st.integers(1, 3)),
        "horizon": data.draw(st.integers(1, 3)),
        "iterations": data.draw(st.integers(1, 2)),
        "bucket_mb": data.draw(st.sampled_from([0.001, 25.0])),
        "optimizer": data.draw(st.sampled_from(["sgd", "momentum"])),
        "skips": data.draw(st.booleans()),
    }
    if keys["pipeline"] > 1:
        schedules = ["gpipe", "1f1b", "zb-h1", "pipedream", "interleaved-1f1b"]
        keys["schedule"] = data.draw(st.sampled_from(schedules))
        keys |= {"virtual_stages": 2} if keys["schedule"].startswith("inter") else {}
    elif keys.get("data", 1) > 1 and "data_style" not in keys:
        keys["zero"] = data.draw(st.integers(0, 3))
    try:
        plan = experiment(**keys)
        predicted = predict(plan)
    except ExperimentError:
        assume(False)
    ran = run(**keys)
    measured = ran.measurement.timeline
    assert sorted(measured.labels()) == sorted(predicted.timeline.labels())
    arrives = plan.parallel.is_asynchronous
    if not arrives:  # else it depends on who comes when
        assert [row.to_json() for row in predicted.staleness] == ran.measurement.staleness
    assert len(measured.decisions) == len(predicted.timeline.decisions)
    steps = keys["horizon"] * keys["iterations"]
    assert len(ran.measurement.losses) == steps
    if not (arrives or updates_within_a_step(plan)):
        one = {key: keys[key] for key in ONE_PROCESS}
        shares = plan.parallel.batch_shares
        _, _, losses = reference(experiment(**one, pipeline=1, data=shares, iterations=steps))
        assert ran.measurement.losses == pytest.approx(losses, rel=1e-11)

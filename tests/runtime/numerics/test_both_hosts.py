"""A host that runs ahead and one that waits train alike, to the last bit, on real ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simulator.experiment.section import ExperimentError

PLANS: list[dict[str, Any]] = [
    {"pipeline": 2, "schedule": "1f1b", "microbatches": 4},
    {"data": 2, "pipeline": 1, "zero": 1, "horizon": 2, "optimizer": "adam"},
    {"data": 2, "pipeline": 1, "zero": 3, "bucket_mb": 0.001, "prefetch": 1},
    {"tensor": 2, "pipeline": 2, "sequence_parallel": True},
    {"context": 2, "pipeline": 1},
    {"pipeline": 2, "recompute": "full"},
    {"pipeline": 2, "schedule": "pipedream", "horizon": 2},
    {"data": 2, "pipeline": 1, "dtype": "fp16", "loss_scale": 2.0**30, "iterations": 8},
    {"pipeline": 2, "clip_norm": 0.1, "optimizer": "momentum"},
    {"data": 2, "pipeline": 1, "data_style": "parameter-server", "servers": 2, "bucket_mb": 0.001},
    {"data": 2, "pipeline": 1, "data_style": "local-sgd", "sync_period": 2, "horizon": 2},
    {"data": 2, "pipeline": 1, "data_style": "diloco", "sync_period": 1, "horizon": 2},
    {
        "data": 2,
        "pipeline": 1,
        "data_style": "diloco",
        "sync_period": 3,
        "horizon": 3,
        "fragments": 2,
        "overlap_steps": 1,
        "bucket_mb": 0.001,
    },
    {"data": 3, "pipeline": 1, "data_style": "gossip", "topology": "ring", "horizon": 2},
    {
        "data": 2,
        "pipeline": 1,
        "data_style": "gossip",
        "topology": "ring",
        "push_sum": True,
        "horizon": 2,
    },
    {"expert": 2, "pipeline": 1, "model": "moe-gpt"},
]


def check_alike(waits: Any, ahead: Any) -> None:
    """Numbers are equal, and times obey the same program."""
    assert ahead.measurement.losses == waits.measurement.losses
    assert ahead.measurement.parameters_norm == waits.measurement.parameters_norm
    assert ahead.measurement.loss_scale == waits.measurement.loss_scale
    assert ahead.measurement.staleness == waits.measurement.staleness
    for mine, theirs in zip(ahead.shares, waits.shares, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one.keys() == other.keys()
            for key in other:  # gradients that have overflowed are not numbers
                torch.testing.assert_close(one[key], other[key], rtol=0, atol=0, equal_nan=True)
    timeline, program = ahead.measurement.timeline, ahead.program
    assert timeline.labels() == waits.measurement.timeline.labels()
    for instruction in program:
        assert timeline.posted[instruction.uid] <= timeline.end[instruction.uid]
        for other in instruction.after:
            assert timeline.end[other.uid] <= timeline.posted[instruction.uid]
    for mine, theirs in zip(timeline.memory, waits.measurement.timeline.memory, strict=True):
        assert mine.nbytes[0] == theirs.nbytes[0]
        assert mine.nbytes[-1] == theirs.nbytes[-1]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: " ".join(map(str, plan.values())))
def test_plans_of_each_kind(run: Callable[..., Any], plan: dict[str, Any]) -> None:
    check_alike(run(**plan, host="waits"), run(**plan, host="runs-ahead"))


MESHES = [
    {"data": 2},
    {"pipeline": 2},
    {"tensor": 2},
    {"data": 2, "pipeline": 2},
    {"data": 2, "tensor": 2},
    {"pipeline": 4},
    {"context": 2, "context_style": "ulysses"},
    {"data": 2, "data_style": "parameter-server"},
]


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,  # a run takes its time: the same ones wherever the suite is run
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_accepted_program(
    data: Any, run: Callable[..., Any], experiment: Callable[..., Any]
) -> None:
    keys: dict[str, Any] = {"layers": 4, "pipeline": 1, "iterations": 1}
    keys |= data.draw(st.sampled_from(MESHES))
    keys["model"] = "gpt" if "context" in keys else data.draw(st.sampled_from(["mlp", "gpt"]))
    keys |= {
        "microbatches": data.draw(st.integers(1, 4)),
        "horizon": data.draw(st.integers(1, 2)),
        "bucket_mb": data.draw(st.sampled_from([0.001, 25.0])),
        "optimizer": data.draw(st.sampled_from(["sgd", "adam"])),
        "clip_norm": data.draw(st.sampled_from([None, 0.1])),
        "recompute": data.draw(st.sampled_from(["none", "full"])),
    }
    if keys["pipeline"] > 1:
        schedules = ["gpipe", "1f1b", "zb-h1", "pipedream-2bw", "interleaved-1f1b"]
        keys["schedule"] = data.draw(st.sampled_from(schedules))
        keys |= {"virtual_stages": 2} if keys["schedule"].startswith("inter") else {}
    elif keys.get("data", 1) > 1 and "data_style" not in keys:
        keys["zero"] = data.draw(st.integers(0, 3))
    try:
        experiment(**keys)
    except ExperimentError:
        assume(False)
    check_alike(run(**keys, host="waits"), run(**keys, host="runs-ahead"))

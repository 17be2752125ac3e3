"""Workers that are handed out microbatches train the model that one process trains."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from replicas import assert_close
from runtime.rank.replay import Replay
from simulator.engine.engine import simulate
from simulator.program.accept_queue import Decision
from simulator.program.operations import Op
from table_costs import TableCosts

PLANS: list[dict[str, Any]] = [
    {"data": 2, "microbatches": 3},
    {"data": 3, "microbatches": 2, "bucket_mb": 0.003, "optimizer": "adam"},
    {"data": 2, "microbatches": 2, "model": "mlp", "layers": 3, "bucket_mb": 1e-6},
    {"data": 2, "microbatches": 2, "clip_norm": 0.5, "servers": 2, "bucket_mb": 0.003},
    {"data": 2, "microbatches": 2, "recompute": "full", "optimizer": "momentum"},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_gradients_parameters_and_losses_are_those_of_one_process(run, equals_one_process, keys):
    ran = run(**keys, data_style="work-queue", iterations=3)
    equals_one_process(ran)
    check_record(ran)


def check_record(ran: Any) -> None:
    """Every microbatch is done once, and nobody holds anything afterwards."""
    timeline, done = ran.measurement.timeline, Counter[int]()
    idle, parallel = set(timeline.idle), ran.experiment.parallel
    for i in ran.program:
        if i.task.op is Op.FORWARD and i.uid not in idle and i.task.segment in (-1, 0):
            done[i.step] += 1
    everything = parallel.data * parallel.microbatches
    assert done == dict.fromkeys(range(ran.program.horizon), everything)
    for sample in timeline.memory:
        assert sample.nbytes[0] == sample.nbytes[-1]


def test_several_steps_follow_each_other(run):
    keys = {"data": 2, "microbatches": 2, "horizon": 3, "bucket_mb": 0.003, "optimizer": "adam"}
    ran = run(**keys, data_style="work-queue")
    whole = run(**keys, data_style="parameter-server")
    check_record(ran)
    assert ran.measurement.losses == pytest.approx(whole.measurement.losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, whole.parameters, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("recorded", ["run", "prediction"])
def test_a_record_is_executed_again_in_one_process(run, recorded):
    """Sums of two workers and of zeros have one order, so parameters are those of the run."""
    keys = {"data": 2, "microbatches": 3, "horizon": 2, "clip_norm": 0.5}
    ran = run(**keys, data_style="work-queue")
    replay = Replay(ran.experiment, ran.program)
    record = ran.measurement.decisions
    if recorded == "prediction":
        timeline = simulate(ran.program, TableCosts([1.0, 2.0, 3.0]))
        record = [timeline.decisions] * len(record)
    for decisions in record:
        replay.iterate([Decision(*pair) for pair in decisions])
    (parameters,) = replay.contexts[0].parameters.values()
    values = torch.cat([value.flatten() for value in ran.parameters[0].values()])
    tolerance = 0.0 if recorded == "run" else 1e-12
    assert torch.allclose(parameters.values, values, rtol=tolerance, atol=tolerance)

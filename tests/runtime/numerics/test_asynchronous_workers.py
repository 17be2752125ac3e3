"""Workers that push and pull as they come: a run replayed in one process is the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.execution.results import execution_of
from runtime.launch.job import Job
from runtime.launch.launcher import Workers
from runtime.rank.replay import replay
from simulator.experiment_file import parse
from simulator.prediction import predict
from simulator.program.arrival_staleness import arrival_staleness
from simulator.program.arrivals import replayed
from simulator.strategies.lowering import lower
from simulator.timeline.trace import load_trace, save_trace

BASE = {"data_style": "asynchronous", "data": 2, "horizon": 3, "microbatches": 2, "layers": 2}
STALE, SOFT = {"data_style": "stale-synchronous"}, {"data_style": "soft-synchronous"}
CASES: list[dict[str, Any]] = [
    {"iterations": 1, "warmup": 2, "optimizer": "adam", "learning_rate": 0.01},
    {"learning_rate_schedule": "linear", "learning_rate_decay": 5},
    {"data": 3, "optimizer": "momentum"},
    {"data": 3, **STALE, "staleness_bound": 0},
    {"data": 3, **SOFT, "gradients_per_update": 2},
    {"data": 3, **SOFT, "backup_workers": 1},
    {"policy": "random-order", "model": "mlp"},
    {"bucket_mb": 0.001},
    {"bucket_mb": 0.001, "servers": 2, "optimizer": "adam"},
    {"bucket_mb": 0.001, "servers": 2, **STALE, "staleness_bound": 1},
]


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_a_replay_gives_the_same_parameters_to_the_last_bit(
    keys: dict[str, Any], run: Callable[..., Any]
) -> None:
    ran = run(**BASE | keys)
    record = ran.measurement.decisions
    assert len(record) == ran.experiment.run.warmup + ran.experiment.run.iterations
    contexts = replay(ran.experiment, ran.program, record)
    held = [*ran.shares, *ran.servers]
    assert len(held) == len(contexts) == ran.experiment.world_size
    for (tensors, _), context in zip(held, contexts, strict=True):
        parts = [
            (layers, parameters.shard[place])
            for parameters in context.parameters.values()
            for layers, place in parameters.segments.items()
        ]
        ours = torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])])
        theirs = torch.cat([tensor.flatten() for tensor in tensors.values()])
        assert torch.equal(ours, theirs)


def test_a_saved_run_can_be_replayed(
    workers: Workers, experiment: Callable[..., Any], tmp_path: Path
) -> None:
    plan = experiment(**BASE)
    answer = workers.run(Job(plan, return_tensors=True))
    ran = execution_of(plan, lower(plan), None, answer)
    save_trace(ran.timeline, tmp_path / "run.json")
    saved = load_trace(tmp_path / "run.json")
    again = parse(saved.meta["experiment"])
    server = replay(again, lower(again), saved.meta["decisions"])[-1]
    (tensors,) = answer["tensors"]["2"].values()
    (parameters,) = server.parameters.values()
    assert parameters.shard.tolist() == tensors[0]


def test_another_order_gives_other_parameters(run: Callable[..., Any]) -> None:
    """What the replay repeats matters: with ranks swapped in the record the result differs."""
    ran = run(**BASE)
    (queue,) = ran.program.queues
    first, second = queue.requests.values()
    swapped = dict(zip([*first, *second], [*second, *first], strict=True))
    record = [
        [decision._replace(request=swapped[decision.request]) for decision in decisions]
        for decisions in ran.measurement.decisions
    ]
    right, wrong = (
        replay(ran.experiment, ran.program, these)[-1]
        for these in (ran.measurement.decisions, record)
    )
    name = next(iter(right.parameters))
    assert not torch.equal(right.parameters[name].shard, wrong.parameters[name].shard)


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_decisions_and_staleness_are_those_of_the_timeline(
    keys: dict[str, Any], run: Callable[..., Any]
) -> None:
    ran = run(**BASE | keys)
    timeline, queues = ran.measurement.timeline, ran.program.queues
    assert len(queues) == keys.get("servers", 1)
    for queue in queues:
        mine = [d for d in timeline.decisions if d.request in queue.by_uid]
        assert sorted(d.request for d in mine) == sorted(queue.by_uid)
        assert tuple(d.accept for d in mine) == queue.accepts
    assert len(timeline.decisions) == sum(len(queue.accepts) for queue in queues)
    assert sorted(timeline.decisions) in [sorted(made) for made in ran.measurement.decisions]
    for decision in timeline.decisions:
        assert timeline.start[decision.accept] == timeline.start[decision.request]
    rows = [row.to_json() for row in arrival_staleness(ran.program, timeline.decisions)]
    assert ran.measurement.staleness == rows
    predicted = predict(ran.experiment)
    for key in ("worker", "server"):
        assert [getattr(row, key) for row in predicted.staleness] == [row[key] for row in rows]
    assert len(predicted.recorded.decisions) == len(timeline.decisions)


@pytest.mark.parametrize("servers", [{}, {"servers": 2, "bucket_mb": 0.001}], ids=str)
def test_one_worker_is_plain_training(
    servers: dict[str, Any],
    run: Callable[..., Any],
    reference: Callable[..., Any],
    experiment: Callable[..., Any],
) -> None:
    """A pull brings what the last push made, with nobody else: gradient descent, step by step."""
    keys = {"microbatches": 2, "layers": 2, "iterations": 4}
    ran = run(**keys, **servers, data_style="asynchronous")
    parameters, _, losses = reference(experiment(**keys))
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    held = {key: value for parts, _ in ran.servers for key, value in parts.items()}
    assert held.keys() == parameters.keys()
    for key, expected in parameters.items():
        assert (held[key] - expected).abs().max() <= 1e-10 * expected.abs().max()
    behind = [row["versions_behind"] for row in ran.measurement.staleness]
    assert behind == [[0]] * len(ran.servers)


LIMITS = {
    "all gradients an update": {**SOFT, "gradients_per_update": 3, "optimizer": "adam"},
    "no backup worker": {**SOFT, "backup_workers": 0, "optimizer": "momentum"},
    "a bound of 0": {**STALE, "staleness_bound": 0, "learning_rate": 0.1 / 3},
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_are_synchronous_training(
    name: str,
    run: Callable[..., Any],
    reference: Callable[..., Any],
    experiment: Callable[..., Any],
) -> None:
    """Each worker's gradient is an update with a bound of 0: their sum replaces their mean."""
    keys = {"data": 3, "microbatches": 2, "layers": 2}
    ran = run(**keys, **LIMITS[name], horizon=2, iterations=2)
    optimizer = ran.experiment.workload.optimizer
    rate = ran.experiment.run.learning_rate * (3 if name == "a bound of 0" else 1)
    one = keys | {"optimizer": optimizer, "learning_rate": rate, "iterations": 4}
    parameters, _, losses = reference(experiment(**one))
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    ((held, _),) = ran.servers
    for key, expected in parameters.items():
        assert (held[key] - expected).abs().max() <= 1e-10 * expected.abs().max()
    norm = sum(float(value.square().sum()) for value in parameters.values()) ** 0.5
    assert ran.measurement.parameters_norm == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize(
    "keys", [keys for keys in CASES if "staleness_bound" in keys], ids=["one server", "two"]
)
def test_no_worker_gets_further_ahead_than_its_bound(
    keys: dict[str, Any], run: Callable[..., Any]
) -> None:
    ran = run(**BASE | keys)
    bound, ranks = keys["staleness_bound"], range(ran.experiment.parallel.data)
    for queue in ran.program.queues:
        for record in ran.measurement.decisions:
            pulled, pushed = dict.fromkeys(ranks, 0), dict.fromkeys(ranks, 0)
            for request in [queue.by_uid[d.request] for d in record if d.request in queue.by_uid]:
                if request.is_push:  # nobody is to read it too early
                    assert min(pulled.values()) > pushed[request.rank] - bound
                    pushed[request.rank] += 1
                else:  # it reads what all have pushed some steps before
                    assert min(pushed.values()) >= pushed[request.rank] - bound
                    pulled[request.rank] += 1
                assert max(pushed.values()) - min(pushed.values()) <= bound + 1


def test_idle_steps_take_no_time_in_the_program_and_change_nothing(run: Callable[..., Any]) -> None:
    ran = run(**BASE | {"data": 3, **SOFT, "gradients_per_update": 2})
    timeline, (queue,) = ran.measurement.timeline, ran.program.queues
    outcomes = replayed(queue, timeline.decisions).outcomes
    pushes = dict(zip(queue.steps, (outcome.pushes for outcome in outcomes), strict=True))
    assert [step for step, count in pushes.items() if not count] == sorted(timeline.idle)
    assert set(pushes.values()) <= {0, 1, 2}
    assert sum(pushes.values()) == len(queue.pushes)


def test_memory_is_held_as_predicted(run: Callable[..., Any]) -> None:
    ran = run(**BASE)
    predicted = predict(ran.experiment).recorded
    assert [m.peak for m in ran.measurement.timeline.memory] == [m.peak for m in predicted.memory]

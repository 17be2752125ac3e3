"""Policies by name: what they need, what they refuse, and what they make of a program."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.experiment.section import ExperimentError
from simulator.program.arrival import (
    BoundedStaleness,
    FirstCome,
    FirstN,
    Policy,
    RandomOrder,
    SoftSync,
)
from simulator.program.program import Program

ASKED = ["parallel.data_style=asynchronous", "parallel.pipeline=1", "workload.layers=2"]


def program(*more: str) -> Program:
    return lower(load(None, [*ASKED, *more]))


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ([], FirstCome()),
        (["parallel.policy=random-order", "run.seed=7"], RandomOrder(7)),
        (["parallel.policy=bounded-staleness", "parallel.staleness_bound=3"], BoundedStaleness(3)),
        (["parallel.policy=softsync", "parallel.pushes=2"], SoftSync(2)),
        (["parallel.policy=first-n", "parallel.pushes=2"], FirstN(2)),
    ],
)
def test_the_server_has_the_policy(keys: list[str], policy: Policy) -> None:
    (queue,) = program("parallel.data=3", *keys).queues
    assert queue.policy == policy


def test_policies_make_other_programs() -> None:
    keys = ["parallel.data=2", "parallel.policy=bounded-staleness"]
    hashes = {
        program("parallel.data=2").hash(),
        *(program(*keys, f"parallel.staleness_bound={bound}").hash() for bound in range(3)),
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["parallel.policy=first-n"],
            "parallel.policy = 'first-n': needs parallel.pushes, which is not set",
        ),
        (
            ["parallel.policy=first-n", "parallel.pushes=3"],
            "parallel.pushes = 3: an update takes the first 3 workers; allowed: 1 to 2",
        ),
        (
            ["parallel.policy=softsync", "parallel.pushes=5", "run.horizon=2"],
            "parallel.pushes = 5: an update takes 5 pushes; allowed: 1 to 4, which is all of them",
        ),
        (
            ["parallel.staleness_bound=1"],
            "parallel.staleness_bound = 1: only for parallel.data_style = 'asynchronous' with "
            "parallel.policy = 'bounded-staleness'",
        ),
        (
            ["parallel.data_style=all-reduce", "parallel.policy=softsync"],
            "parallel.policy = 'softsync': only for parallel.data_style = 'asynchronous', not "
            "'all-reduce'",
        ),
        (
            ["parallel.data_style=parameter-server", "parallel.pushes=2"],
            "parallel.pushes = 2: only for parallel.data_style = 'asynchronous' with "
            "parallel.policy = 'softsync' or 'first-n'",
        ),
        (
            ["parallel.policy=first"],
            "parallel.policy = 'first': did you mean 'first-n'? allowed: first-come, random-order, "
            "bounded-staleness, softsync, first-n, file:PATH.py or a dotted name of your own",
        ),
    ],
)
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        load(None, [*ASKED, "parallel.data=2", *keys])
    assert str(error.value) == message

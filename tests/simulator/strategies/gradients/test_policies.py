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

SOFT, STALE = (f"parallel.data_style={name}-synchronous" for name in ("soft", "stale"))
ASKED = ["parallel.data_style=asynchronous", "parallel.pipeline=1", "workload.layers=2"]


def program(*more: str) -> Program:
    return lower(load(None, [*ASKED, *more]))


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ([], FirstCome()),
        (["parallel.policy=random-order", "run.seed=7"], RandomOrder(7)),
        ([STALE, "parallel.staleness_bound=3", "run.horizon=4"], BoundedStaleness(3)),
        ([SOFT, "parallel.gradients_per_update=2"], SoftSync(2)),
        ([SOFT, "parallel.backup_workers=1"], FirstN(2)),
    ],
)
def test_the_server_has_the_policy(keys: list[str], policy: Policy) -> None:
    (queue,) = program("parallel.data=3", *keys).queues
    assert queue.policy == policy


def test_policies_make_other_programs() -> None:
    keys = ["parallel.data=2", "run.horizon=3"]
    hashes = {
        program(*keys).hash(),
        *(program(*keys, STALE, f"parallel.staleness_bound={s}").hash() for s in range(3)),
        *(program(*keys, SOFT, f"parallel.gradients_per_update={c}").hash() for c in (1, 2)),
        *(program(*keys, SOFT, f"parallel.backup_workers={b}").hash() for b in (0, 1)),
    }
    assert len(hashes) == 8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            [SOFT],
            "parallel.data_style = 'soft-synchronous': needs one of parallel.gradients_per_update, "
            "parallel.backup_workers; none is set",
        ),
        (
            [SOFT, "parallel.gradients_per_update=1", "parallel.backup_workers=1"],
            "parallel.data_style = 'soft-synchronous': needs one of parallel.gradients_per_update, "
            "parallel.backup_workers; all are set",
        ),
        (
            [STALE],
            "parallel.data_style = 'stale-synchronous': needs parallel.staleness_bound; none is "
            "set",
        ),
        (
            [SOFT, "parallel.backup_workers=2"],
            "parallel.backup_workers = 2: with parallel.data = 2 workers none would be left; "
            "allowed: 0 to 1",
        ),
        (
            [SOFT, "parallel.gradients_per_update=3"],
            "parallel.gradients_per_update = 3: an update takes pushes of 3 workers; allowed: 1 "
            "to 2",
        ),
        (
            [STALE, "parallel.staleness_bound=3", "run.horizon=3"],
            "parallel.staleness_bound = 3: with run.horizon = 3 no worker gets so far ahead; "
            "allowed: 0 to 2",
        ),
        (
            ["parallel.staleness_bound=1"],
            "parallel.staleness_bound = 1: only for parallel.data_style = 'stale-synchronous', not "
            "'asynchronous'",
        ),
        (
            ["parallel.data_style=all-reduce", "parallel.policy=random-order"],
            "parallel.policy = 'random-order': only for parallel.data_style = 'asynchronous', not "
            "'all-reduce'",
        ),
        (
            ["parallel.data_style=parameter-server", "parallel.backup_workers=1"],
            "parallel.backup_workers = 1: only for parallel.data_style = 'soft-synchronous', not "
            "'parameter-server'",
        ),
        (
            ["parallel.policy=first"],
            "parallel.policy = 'first': allowed: first-come, random-order, file:PATH.py or a "
            "dotted name of your own",
        ),
    ],
)
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        load(None, [*ASKED, "parallel.data=2", *keys])
    assert str(error.value) == message

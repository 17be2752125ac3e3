"""Versions of weights by hand: who uses which, and how long an old one is kept."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.tensors import TensorKind, stashed

SMALL = ["workload.model=mlp", "workload.layers=3", "parallel.pipeline=3"]


def program(schedule: str, m: int) -> Program:
    keys = [*SMALL, f"parallel.schedule={schedule}", f"parallel.microbatches={m}"]
    return lower(load(None, keys))


@pytest.mark.parametrize(
    ("schedule", "m", "rank", "versions"),
    [
        ("pipedream", 5, 0, [0, 0, 0, 1, 2]),  # three forwards before the first update
        ("pipedream", 5, 1, [0, 0, 1, 2, 3]),
        ("pipedream", 5, 2, [0, 1, 2, 3, 4]),
        ("pipedream-2bw", 9, 0, [0, 0, 0, 0, 0, 0, 1, 1, 1]),
        ("1f1b", 5, 0, [-1] * 5),
    ],
)
def test_a_forward_pass_names_its_weights(
    schedule: str, m: int, rank: int, versions: list[int]
) -> None:
    instructions = program(schedule, m).ranks[rank]
    assert [i.task.version for i in instructions if i.task.op is Op.FORWARD] == versions


def test_old_weights_are_kept_to_the_last_backward_pass_that_uses_them() -> None:
    """On rank 0 version 0 is used by microbatches 0 to 2; the first update supersedes it."""
    instructions = program("pipedream", 5).ranks[0]
    steps = [i for i in instructions if i.task.op is Op.OPTIMIZER_STEP]
    (stash,) = steps[0].task.allocates
    assert stash.name == stashed(0, 0)
    assert stash.nbytes == program("pipedream", 5).resident[0]["parameters"]
    (freeing,) = [i for i in instructions if stash.name in i.task.frees]
    assert (freeing.task.op, freeing.microbatch) == (Op.BACKWARD, 2)


def test_the_last_rank_keeps_nothing() -> None:
    assert not any(
        tensor.name.kind is TensorKind.STASH
        for i in program("pipedream", 5).ranks[2]
        for tensor in i.task.allocates
    )

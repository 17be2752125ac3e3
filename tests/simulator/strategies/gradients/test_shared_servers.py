"""Trainers that are servers: who updates what, how much travels, and what is refused."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from simulator.program.program import Program

ASKED = ["pipeline=1", "data_style=parameter-server", "servers=shared", "bucket_mb=0.1"]


def program(*more: str) -> Program:
    return lower(load(None, [*ASKED, *more]))


def test_each_bucket_has_one_server_among_its_replicas_and_bytes_are_about_equal() -> None:
    lists = program("data=4", "microbatches=2")
    assert lists.num_ranks == 4
    assert len({tuple(b.server for b in held) for held in lists.buckets}) == 1
    held = [sum(b.nbytes for b in lists.buckets[0] if b.server == rank) for rank in range(4)]
    largest = max(bucket.nbytes for bucket in lists.buckets[0])
    assert max(held) - min(held) <= largest
    for rank, listed in enumerate(lists.ranks):
        updated = [i.task.tensor for i in listed if i.task.op is Op.OPTIMIZER_STEP]
        assert set(updated) == {b.weights for b in lists.buckets[rank] if b.server == rank}
        reduces, broadcasts = (
            [i.task.root for i in listed if i.task.op is op] for op in (Op.REDUCE, Op.BROADCAST)
        )
        first = [i.task.root for i in lists.ranks[0] if i.task.op is Op.REDUCE]
        assert reduces == broadcasts == first


def test_a_trainer_passes_on_twice_what_others_serve() -> None:
    """2 V (n - 1)/n on average over trainers, as with an all-reduce; V by n - 1 of n each way."""
    for count in (2, 4):
        lists = program(f"data={count}")
        whole = sum(bucket.nbytes for bucket in lists.buckets[0])
        passed = 0
        for rank, listed in enumerate(lists.ranks):
            mine = sum(bucket.nbytes for bucket in lists.buckets[rank] if bucket.server == rank)
            sent = sum(
                i.task.nbytes
                for i in listed
                if i.task.op in (Op.REDUCE, Op.BROADCAST) and i.task.root != rank
            )
            assert sent == 2 * (whole - mine)
            passed += sent
        assert passed == 2 * whole * (count - 1)


def test_the_optimizer_is_divided_and_nothing_else() -> None:
    keys = ["data=4", "optimizer=adam"]
    shared, plain = (predict(load(None, [*ASKED, *keys, *more])) for more in ([], ["servers=1"]))
    held = shared.program.resident
    for key in ("parameters", "gradients"):
        assert {rank[key] for rank in held} == {plain.program.resident[0][key]}
    assert sum(rank["optimizer"] for rank in held) == 2 * held[0]["parameters"]
    assert shared.staleness == plain.staleness
    assert {row.role for row in shared.ranks} == {"trainer"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["data=2", "bucket_mb=1000"],
            "parallel.servers = 'shared': the gradients of rank 1 are in 1 bucket, each updated by "
            "one of 2 replicas, so that not every rank has one; allowed: a parallel.bucket_mb "
            "below 1000",
        ),
        (
            ["data=1"],
            "parallel.servers = 'shared': with one replica there is nobody to share with; "
            "allowed: a whole number, or data, context or expert of 2 or more",
        ),
        (
            ["data=2", "data_style=asynchronous"],
            "parallel.servers = 'shared': with parallel.data_style = 'asynchronous' a rank's "
            "passes and the updates by what arrives would take turns on its device in an order "
            "that nobody knows beforehand; allowed: a whole number",
        ),
        (
            ["data=2", "data_style=all-reduce"],
            "parallel.servers = 'shared': only for parallel.data_style = 'parameter-server', "
            "'work-queue', 'asynchronous', 'stale-synchronous' or 'soft-synchronous', not "
            "'all-reduce'",
        ),
        (
            ["data=2", "servers=split"],
            "parallel.servers = 'split': allowed: 'shared', or a whole number, 1 to 65536",
        ),
    ],
)
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        program(*keys)
    assert str(error.value) == message

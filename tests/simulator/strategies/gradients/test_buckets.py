"""Buckets are padded to equal shards, and say what a rank holds throughout."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.strategies.gradients.buckets import bind_bucket, resident_bytes
from simulator.strategies.gradients.parameter_layout import BucketRanks
from simulator.strategies.stages.bucket_contents import BucketContents, GradientAxes

CONTENTS = BucketContents(((0, 2),), GradientAxes(("data",), ()), parameters=10)


def bound(zero: int, shards: tuple[int, ...]):
    experiment = load(None, ["parallel.data=4", f"parallel.zero={zero}"])
    return bind_bucket(CONTENTS, BucketRanks((0,), shards, 1), experiment)


def test_a_sharded_bucket_is_padded() -> None:
    bucket = bound(2, (0, 1, 2, 3))
    assert (bucket.nbytes, bucket.part_bytes, bucket.zero) == (12 * 4, 3 * 4, 2)


def test_a_bucket_of_one_rank_is_whole() -> None:
    bucket = bound(2, ())
    assert (bucket.nbytes, bucket.part_bytes, bucket.zero) == (10 * 4, 10 * 4, 0)


@pytest.mark.parametrize(
    ("zero", "parameters", "gradients", "optimizer"),
    [(1, 48, 48, 24), (2, 48, 12, 24), (3, 12, 12, 24)],
)
def test_what_is_sharded_counts_its_part(
    zero: int, parameters: int, gradients: int, optimizer: int
) -> None:
    held = resident_bytes([bound(zero, (0, 1, 2, 3))], states=2, rank=0)
    assert held == {"parameters": parameters, "gradients": gradients, "optimizer": optimizer}
    assert "optimizer" not in resident_bytes([bound(zero, (0, 1, 2, 3))], states=0, rank=0)

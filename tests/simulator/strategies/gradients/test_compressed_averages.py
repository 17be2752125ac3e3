"""An average becomes an encoding behind the update, and a decoding before the next use."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.program.operations import Op
from simulator.program.program import Program

SMALL = ["model=mlp", "layers=4", "hidden=64", "sequence=8", "data=2", "microbatches=2"]
PERIODS = ["pipeline=1", "bucket_mb=0.1", "sync_period=2", "horizon=4"]
BLOCK = 64 * 256 + 256 + 256 * 64 + 64


def program(*sets: str) -> Program:
    return lower(load(None, [*SMALL, *PERIODS, *sets]))


@pytest.mark.parametrize("style", ["local-sgd", "diloco"])
def test_changes_are_encoded_behind_updates_and_decoded_before_their_use(style: str) -> None:
    labels = [
        i.label
        for i in program(f"data_style={style}", "compression=int8").ranks[0]
        if i.step == 1 and i.microbatch < 0
    ]
    sent = ("ENCODE", "GATHER_SCALE", "GATHER_LEVELS")
    used = ("DECODE", "OUTER") if style == "diloco" else ("DECODE",)
    assert labels == [
        "s1:0STEP",
        *(f"s1:0{name}.{bucket}" for bucket in (3, 2, 1, 0) for name in sent),
        *(f"s1:0{name}.{bucket}" for bucket in (3, 2, 1, 0) for name in used),
    ]


def test_an_outer_optimizer_has_what_changes_are_counted_from() -> None:
    held = [
        program(f"data_style={style}", "compression=int8").resident[0].get("compression", 0)
        for style in ("local-sgd", "diloco")
    ]
    assert held == [4 * 4 * BLOCK, 0]


def test_a_replica_sends_four_bits_of_each_value() -> None:
    """As Streaming DiLoCo does: an eighth of fp32, and the norms."""
    sets = ["data_style=diloco", "compression=qsgd", "levels=7", "bucket_mb=100"]
    sent = sum(i.task.nbytes for i in program(*sets).ranks[0] if i.task.op is Op.ALL_GATHER)
    plain = program(*sets[:1], "bucket_mb=100").ranks[0]
    whole = sum(i.task.nbytes for i in plain if i.task.op is Op.ALL_REDUCE)
    groups = -(-4 * BLOCK // 512)
    assert whole == 2 * 4 * 4 * BLOCK
    assert sent == 2 * 2 * groups * (256 + 4)


@pytest.mark.parametrize("style", ["local-sgd", "diloco"])
def test_other_averages_stay(style: str) -> None:
    sets = [f"data_style={style}", "compression=fp16"]
    if style == "diloco":
        sets.append("compression_start=2")
    steps = [i.step for i in program(*sets).ranks[0] if i.task.name == "AVERAGE"]
    assert set(steps) == ({1} if style == "diloco" else set())

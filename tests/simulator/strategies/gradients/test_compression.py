"""A reduction becomes an encoding, the collectives of what was encoded, and a decoding."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.prediction import Prediction
from simulator.program.operations import Op
from simulator.program.program import Program

SMALL = ["model=mlp", "layers=4", "hidden=64", "sequence=8", "data=2", "microbatches=2"]
BUCKETS = ["bucket_mb=0.1"]
BLOCK = 64 * 256 + 256 + 256 * 64 + 64
CODECS = {
    "fp16": [],
    "bf16": [],
    "int8": [],
    "qsgd": ["levels=7"],
    "top-k": ["density=0.01"],
    "one-bit": [],
    "power-sgd": ["compression_rank=2"],
}


def program(*sets: str) -> Program:
    return lower(load(None, ["pipeline=1", *SMALL, *BUCKETS, *sets]))


def predicted(*sets: str) -> Prediction:
    return predict(load(None, ["pipeline=1", *SMALL, *BUCKETS, *sets]))


@pytest.mark.parametrize("codec", CODECS)
def test_buckets_are_encoded_behind_their_last_backward_pass(codec: str) -> None:
    labels = [
        i.label
        for i in program(f"compression={codec}", *CODECS[codec]).ranks[0]
        if i.task.op in (Op.ENCODE, Op.DECODE, Op.BACKWARD, Op.OPTIMIZER_STEP) and i.microbatch != 0
    ]
    first = [label for label in labels if label[1:] != "ENCODE"]
    assert labels[:2] == ["0B1.3", "0ENCODE.3"]
    assert first[-5:] == [*(f"0DECODE.{bucket}" for bucket in (3, 2, 1, 0)), "0STEP"]
    assert labels.count("0ENCODE.3") == len([n for n in labels if n == "0B1.3"])


def test_what_is_sent_is_as_large_as_the_codec_says() -> None:
    sent = {
        codec: {
            i.task.name: i.task.nbytes
            for i in program(f"compression={codec}", *CODECS[codec]).ranks[0]
            if i.task.group and i.task.op not in (Op.ENCODE, Op.DECODE)
        }
        for codec in ("fp16", "int8", "top-k")
    }
    kept = -(-BLOCK // 100)
    assert sent["fp16"] == {"REDUCE_CAST": 2 * BLOCK}
    assert sent["int8"] == {"GATHER_SCALE": 2 * 8, "GATHER_LEVELS": 2 * BLOCK}
    assert sent["top-k"] == {"GATHER_VALUES": 2 * 4 * kept, "GATHER_PLACES": 2 * 4 * kept}


def test_a_cast_is_scattered_where_a_rank_needs_its_part_only() -> None:
    ops = {i.task.name: i.task for i in program("compression=fp16", "zero=1").ranks[0]}
    task = ops["REDUCE_CAST"]
    assert (task.op, task.nbytes, task.allocates[0].nbytes) == (
        Op.REDUCE_SCATTER, 2 * BLOCK, BLOCK
    )  # fmt: skip


def test_first_steps_are_as_without_compression() -> None:
    steps = ["horizon=3", "compression=int8", "compression_start=2"]
    plain = program("horizon=3").ranks[0]
    ours = program(*steps).ranks[0]
    assert [i.label for i in ours if i.step < 2] == [i.label for i in plain if i.step < 2]
    assert {i.step for i in ours if i.task.op is Op.ENCODE} == {2}


def test_errors_are_resident() -> None:
    plain, fed = (
        program("compression=int8", f"error_feedback={fed}").resident[0]
        for fed in ("false", "true")
    )
    assert "compression" not in plain
    assert fed["compression"] == 4 * BLOCK * 4


def test_replicas_are_simulated_once() -> None:
    """A folded program has the hash of the whole one."""
    sets = ["data=16", "compression=top-k", "density=0.1", "preset=dgx-a100-80gb"]
    found = predicted(*sets)
    assert found.program.num_ranks == 1
    assert found.program.hash() == program(*sets).hash()


def test_plans_without_compression_are_as_before() -> None:
    assert program("compression=none").hash() == program().hash()


@pytest.mark.parametrize("gbit", [0.2, 1, 3, 10, 100, 1000])
def test_it_pays_if_it_takes_less_than_what_was_exposed(gbit: float) -> None:
    """T_encode + T_sent + T_decode < T_all-reduce, of one bucket, which nothing hides."""
    network = ["preset=dgx-a100-80gb", "devices_per_node=1", "nodes=2", "hidden=1024"]
    one = [*network, f"node_bandwidth_gbit={gbit}", "bucket_mb=1000"]
    plain, found = predicted(*one), predicted(*one, "compression=fp16")
    times = {
        name: sum(
            float(of.timeline.end[i.uid] - of.timeline.start[i.uid])
            for i in of.program.ranks[0]
            if i.task.op in ops
        )
        for name, of, ops in (
            ("before", plain, (Op.ALL_REDUCE,)),
            ("coding", found, (Op.ENCODE, Op.DECODE)),
            ("sent", found, (Op.ALL_REDUCE,)),
        )
    }
    more = times["coding"] + times["sent"] - times["before"]
    longer = found.timeline.iteration_time - plain.timeline.iteration_time
    assert longer == pytest.approx(more, abs=1e-9)


def test_the_second_round_of_a_bucket_comes_behind_the_first_of_the_one_after_it() -> None:
    """So that what it waits for travels beside a backward pass."""
    sets = ["compression=power-sgd", "compression_rank=2"]
    labels = [i.label for i in program(*sets).ranks[0] if i.microbatch == -1]
    first = ["ENCODE", "REDUCE_REST", "REDUCE_P"]
    second = ["ENCODE_Q", "REDUCE_Q"]
    expected = [f"0{name}.3" for name in first]
    for bucket in (2, 1, 0):
        expected += [f"0{name}.{bucket}" for name in first]
        expected += [f"0{name}.{bucket + 1}" for name in second]
    expected += [f"0{name}.0" for name in second]
    assert labels == [*expected, *(f"0DECODE.{bucket}" for bucket in (3, 2, 1, 0)), "0STEP"]


def test_predictions_of_several_steps_are_those_of_one_repeated() -> None:
    one, four = (
        predicted(f"horizon={n}", "compression=power-sgd", "compression_rank=2") for n in (1, 4)
    )
    assert len(four.program) == 4 * len(one.program)


@pytest.mark.parametrize("codec", CODECS)
def test_buckets_that_end_later_than_they_begin_are_sent_in_the_order_of_their_ends(
    codec: str,
) -> None:
    """Tied embeddings have the first gradients of a backward pass, and the last ones."""
    tied = ["model=gpt", "layers=2", "hidden=64", "heads=4", "sequence=32", "tie_embeddings=true"]
    keys = ["data=2", "pipeline=1", f"compression={codec}", *CODECS[codec]]
    program = lower(load(None, [*tied, *keys]))
    assert [i.label for i in program.ranks[0] if i.task.op is Op.ENCODE][-1][-2:] == ".0"

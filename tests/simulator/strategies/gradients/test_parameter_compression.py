"""An all-gather of parameters becomes an encoding, the gathers of what it made, and a decoding."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simulator import load, lower, predict
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from small_buckets import BLOCK, SMALL, small

COUNT = BLOCK // 4
KEYS = {"data": 2, "zero": 3}


@pytest.mark.parametrize(
    ("codec", "sent"),
    [
        ("fp16", {"CAST": 2 * COUNT}),
        ("bf16", {"CAST": 2 * COUNT}),
        ("int8", {"SCALES": 2 * 4 * -(-COUNT // 2 // 2048), "LEVELS": COUNT}),
    ],
)
def test_what_is_gathered_is_as_large_as_the_codec_says(codec: str, sent: dict[str, int]) -> None:
    program = lower(small(**KEYS, parameter_compression=codec))
    found = {i.task.name: i.task for i in program.ranks[0] if i.task.op is Op.ALL_GATHER}
    assert {name: task.nbytes for name, task in found.items()} == {
        f"UNSHARD_{way}_{label}": nbytes for way in "FB" for label, nbytes in sent.items()
    }


def test_only_coding_is_more_and_the_same_is_gathered() -> None:
    plain, ours = (
        list(lower(small(**KEYS, microbatches=3, **more)).ranks[0])
        for more in ({}, {"parameter_compression": "fp16"})
    )
    coding = (Op.ENCODE, Op.DECODE)
    gathered = [i.label.replace("_CAST", "") for i in ours if i.task.op not in coding]
    assert gathered == [i.label for i in plain]
    gathers = sum(i.task.op is Op.ALL_GATHER for i in plain)
    assert [sum(i.task.op is op for i in ours) for op in coding] == [gathers, gathers]


def test_decoding_comes_directly_before_the_use_and_waits_for_what_was_gathered() -> None:
    instructions = lower(small(**KEYS, parameter_compression="int8", microbatches=2)).ranks[0]
    computes = [i for i in instructions if i.task.op is not Op.ALL_GATHER]
    computes = [i for i in computes if i.task.op is not Op.REDUCE_SCATTER]
    for decode, use in pairwise(computes):
        if decode.task.op is Op.DECODE:
            assert use.task.layers == decode.task.layers and decode in use.after
            assert {i.task.allocates[0].name for i in decode.after} >= set(decode.task.sources)
            assert decode.task.frees == decode.task.sources


def test_whole_parameters_are_held_from_their_decoding_on() -> None:
    """With prefetching there is one whole copy of a bucket, not two, beside what is encoded."""
    peaks = [
        max(m.peak for m in predict(small(**KEYS, parameter_compression=codec)).timeline.memory)
        for codec in ("none", "int8")
    ]
    assert peaks[1] < peaks[0]


def test_coding_costs_time() -> None:
    found = predict(small(**KEYS, parameter_compression="int8"))
    coding = [i for i in found.program.ranks[0] if i.task.op in (Op.ENCODE, Op.DECODE)]
    assert all(found.timeline.end[i.uid] > found.timeline.start[i.uid] for i in coding)


def test_gathers_of_a_slow_network_take_a_quarter_of_the_time() -> None:
    """Of a sharded step, gradients are 1 of 3 that are sent, and gathers 2."""
    network = ["preset=dgx-a100-80gb", "devices_per_node=1", "nodes=2", "node_bandwidth_gbit=0.01"]
    plan = [*SMALL, "data=2", "zero=3", "prefetch=0", "microbatches=1"]
    times = []
    for codec in ("none", "int8"):
        found = predict(load(None, [*plan, *network, f"parameter_compression={codec}"]))
        times.append(
            sum(
                float(found.timeline.end[i.uid] - found.timeline.start[i.uid])
                for i in found.program.ranks[0]
                if i.task.op is Op.ALL_GATHER
            )
        )
    assert times[1] / times[0] == pytest.approx(1 / 4, rel=0.02)


def test_steps_encode_what_the_step_before_has_updated() -> None:
    labels = [
        i.label
        for i in lower(
            load(None, [*SMALL, "data=2", "zero=3", "parameter_compression=int8", "horizon=2"])
        ).ranks[0]
    ]
    assert labels.index("0STEP") < labels.index("s1:0ENCODE_F0.0")


def test_plans_without_it_are_as_before() -> None:
    assert lower(small(**KEYS, parameter_compression="none")).hash() == lower(small(**KEYS)).hash()


def test_shards_are_simulated_once() -> None:
    keys = [*SMALL, "data=16", "zero=3", "parameter_compression=int8", "preset=dgx-a100-80gb"]
    found = predict(load(None, keys))
    assert found.program.num_ranks == 1
    assert found.program.hash() == lower(load(None, keys)).hash()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"data": 2, "zero": 2, "parameter_compression": "int8"},
            "parallel.parameter_compression = 'int8': only for parallel.zero = 3, not 2",
        ),
        *(
            (
                {"data": 2, "zero": 3, "parameter_compression": codec},
                f"parallel.parameter_compression = {codec!r}: allowed: 'none', 'fp16', 'bf16' or "
                "'int8'",
            )
            for codec in ("qsgd", "top-k", "one-bit", "power-sgd")
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        small(**keys)
    assert str(error.value) == message


def test_casts_of_values_of_two_bytes_are_refused() -> None:
    with pytest.raises(ExperimentError, match="have 2 bytes already"):
        load(None, [*SMALL, "dtype=bf16", "data=2", "zero=3", "parameter_compression=fp16"])

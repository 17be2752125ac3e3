"""What a timeline says, against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import load, predict
from simulator.analysis.metrics import (
    bubble,
    metrics_of,
    model_flops,
    peak_inflight,
    rank_metrics,
    union_length,
)
from simulator.analysis.results import ProgramSummary
from simulator.cluster.catalogue import load_preset
from simulator.cluster.resolve import resolve
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.timeline.timeline import Kind, MemorySamples, Timeline

intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=12)


@given(intervals)
def test_union_length(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], dtype=float)
    ends = starts + np.array([length for _, length in spans], dtype=float)
    cells = {cell for start, length in spans for cell in range(start, start + length)}
    assert union_length(starts, ends) == len(cells)


KINDS = {
    "F": Kind(Op("F"), "F", 0, -1, COMPUTE_STREAM, -1, 0),
    "B": Kind(Op("B"), "B", 0, -1, COMPUTE_STREAM, -1, 0),
    "I": Kind(Op("I"), "I", 0, -1, COMPUTE_STREAM, -1, 0),
    "W": Kind(Op("W"), "W", 0, -1, COMPUTE_STREAM, -1, 0),
    "f": Kind(Op("F"), "F", 1, -1, COMPUTE_STREAM, -1, 0),
    "b": Kind(Op("B"), "B", 1, -1, COMPUTE_STREAM, -1, 0),
    "SEND": Kind(Op("SEND"), "SEND_F", 0, -1, Stream.send(1), 1, 8),
    "REDUCE": Kind(Op("ALL_REDUCE"), "REDUCE_GRAD", 0, -1, Stream.along("data"), -1, 8),
}


def timeline(*spans: tuple[int, str, int, float, float], num_ranks: int = 1) -> Timeline:
    """From (rank, kind, microbatch, start, end)."""
    names = list(KINDS)
    start, end = (np.array([span[n] for span in spans], dtype=float) for n in (3, 4))
    return Timeline(
        num_ranks,
        list(KINDS.values()),
        np.array([span[0] for span in spans], dtype=np.int64),
        np.array([names.index(span[1]) for span in spans], dtype=np.int64),
        np.array([span[2] for span in spans], dtype=np.int64),
        start,
        start,
        end,
    )


def test_times_of_a_rank_by_hand() -> None:
    """Compute 0-2 and 5-7, messages 1-4 and 6-8 of which 2-4 and 7-8 show; rank 1 waits."""
    rows = rank_metrics(
        timeline(
            (0, "F", 0, 0, 2),
            (0, "SEND", 0, 1, 4),
            (0, "B", 0, 5, 7),
            (0, "REDUCE", -1, 6, 8),
            (1, "F", 0, 4, 10),
            num_ranks=3,
        )
    )
    times = [(row.compute_s, row.exposed_comm_s, row.idle_s) for row in rows]
    assert times == [(4, 3, 3), (6, 0, 4), (0, 0, 10)]
    assert [(row.first_start_s, row.last_end_s) for row in rows] == [(0, 8), (4, 10), (0, 0)]


def test_bubble_by_hand() -> None:
    found = timeline((0, "F", 0, 0, 2), (0, "SEND", 0, 2, 4), (1, "F", 0, 4, 5), num_ranks=2)
    assert bubble(found) == (7 / 10, 7 / 3)
    assert bubble(timeline()) == (0.0, 0.0)
    full = timeline((0, "F", 0, 0, 0.15), (0, "F", 1, 0.15, 0.29), (0, "B", 0, 0.29, 0.91))
    assert bubble(full) == (0.0, 0.0)  # in floating point the sum of the lengths exceeds 0.91


@pytest.mark.parametrize(
    ("spans", "peak"),
    [
        ([], 0),
        ([("F", 0, 0, 1), ("B", 0, 1, 2)], 1),
        ([("F", 0, 0, 1), ("F", 1, 1, 2), ("B", 0, 2, 3), ("B", 1, 3, 4)], 2),
        # the next begins when the one before has ended: never two
        ([("F", 0, 0, 1), ("B", 0, 1, 2), ("F", 1, 2, 3), ("B", 1, 3, 4)], 1),
        # where the backward is split, weights end it
        ([("F", 0, 0, 1), ("I", 0, 1, 2), ("F", 1, 2, 3), ("W", 0, 3, 4), ("B", 1, 4, 5)], 2),
        # two stages of one rank count each
        ([("F", 0, 0, 1), ("f", 0, 1, 2), ("b", 0, 2, 3), ("B", 0, 3, 4)], 2),
        # segments of a stage count once
        ([("F", 0, 0, 1), ("F", 0, 1, 2), ("B", 0, 2, 3), ("B", 0, 3, 4)], 1),
        # held from the first segment's start to the last one's end
        (
            [("F", 0, 0, 1), ("F", 0, 5, 6), ("F", 1, 6, 7), ("B", 1, 7, 8), ("B", 0, 8, 9)],
            2,
        ),
    ],
)
def test_microbatches_in_flight_by_hand(spans, peak: int) -> None:
    assert peak_inflight(timeline(*((0, *span) for span in spans))) == [peak]


@pytest.mark.parametrize(
    ("schedule", "expected"), [("gpipe", [5, 5, 5]), ("1f1b", [3, 2, 1]), ("naive", [1, 1, 1])]
)
def test_cutting_stages_into_segments_changes_nothing_in_flight(schedule, expected) -> None:
    experiment = load(
        None,
        [
            *("workload.model=mlp", "workload.layers=6", "workload.hidden=64"),
            *("parallel.pipeline=3", "parallel.microbatches=5", "parallel.data=2"),
            *("parallel.bucket_mb=0.01", f"parallel.schedule={schedule}"),
            "cluster.preset=dgx-h100",
        ],
    )
    found = predict(experiment, resolve(experiment)).timeline
    assert max(kind.segment for kind in found.kinds) == 1
    assert peak_inflight(found) == expected * 2


@pytest.mark.parametrize("preset", ["laptop", "dgx-a100-80gb"])
@pytest.mark.parametrize("plan", [["data=2"], ["pipeline=4"], ["data=2", "pipeline=2"]])
def test_the_time_of_every_rank_adds_up(preset: str, plan: list[str]) -> None:
    settings = [f"cluster.preset={preset}", "parallel.bucket_mb=0.2", "parallel.pipeline=1"]
    experiment = load(None, settings + [f"parallel.{setting}" for setting in plan])
    result = predict(experiment, resolve(experiment))
    total = result.iteration_time_s
    for row in result.ranks:
        parts = [row.compute_s, row.exposed_comm_s, row.idle_s]
        assert sum(parts) == pytest.approx(total, rel=1e-9)
        assert min(parts) >= 0
        assert 0 <= row.first_start_s <= row.last_end_s <= total
    busy = sum(row.compute_s for row in result.ranks)
    assert result.bubble_fraction == pytest.approx(1 - busy / total / len(result.ranks))
    assert result.bubble_ratio == pytest.approx(len(result.ranks) * total / busy - 1)


def test_mfu_and_tokens_by_hand() -> None:
    experiment = load(
        None,
        [
            *("workload.model=mlp", "workload.layers=1", "workload.hidden=32"),
            *("workload.sequence=16", "workload.global_batch=12", "parallel.pipeline=1"),
            *("parallel.data=2", "parallel.microbatches=3"),
        ],
    )
    found = timeline((0, "F", 0, 0, 2), (1, "F", 0, 0, 4), num_ranks=2)
    tokens = 12 * 16
    flops = 2 * tokens * 32 * 128 * (2 + 1 + 2)  # forward, input of fc2, both weights
    assert model_flops(experiment) == flops
    result = metrics_of(found, experiment, flops / 4, "abc")
    assert result.mfu == result.hfu == 0.5  # of two devices for 4 s
    assert result.tokens_per_s == tokens / 4
    assert result.program == ProgramSummary("abc", 2, 2)
    assert metrics_of(found, experiment, None, "abc").mfu is None


def test_no_device_is_faster_than_its_peak() -> None:
    experiment = load(None, ["cluster.preset=dgx-h100", "workload.dtype=bf16",
                             "workload.hidden=4096", "workload.sequence=2048",
                             "parallel.pipeline=1", "parallel.microbatches=1"])  # fmt: skip
    result = predict(experiment, resolve(experiment))
    assert 0.3 < result.mfu <= load_preset("dgx-h100").device.matmul_efficiency


def test_a_unit_model_has_no_tokens_and_no_flops() -> None:
    experiment = load(None, ["workload.model=unit"])
    result = metrics_of(timeline((0, "F", 0, 0, 2)), experiment, 1e12, "")
    assert (result.mfu, result.hfu, result.tokens_per_s) == (None, None, None)


def test_peak_memory_is_the_largest_sample() -> None:
    found = timeline((0, "F", 0, 0, 2), num_ranks=2)
    for values in ([1, 9, 3], [4]):
        times = np.arange(len(values), dtype=float)
        found.memory.append(MemorySamples(times, np.array(values, dtype=np.int64)))
    assert [row.peak_memory_bytes for row in rank_metrics(found)] == [9, 4]

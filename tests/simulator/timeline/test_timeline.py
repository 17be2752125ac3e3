"""The columns of a timeline."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import load, lower
from simulator.program.operations import COMMUNICATION, Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.timeline.timeline import Kind, MemorySamples, Timeline


def test_spans_are_the_instructions_of_the_program() -> None:
    program = lower(load(None, ["parallel.data=2", "parallel.bucket_mb=0.5"]))
    posted = np.arange(len(program), dtype=float)
    timeline = Timeline.of_program(program, posted, posted + 1, posted + 2, meta={"source": "x"})
    assert timeline.labels() == [i.label for i in program]
    assert timeline.rank.tolist() == [i.rank for i in program]
    assert timeline.microbatch.tolist() == [i.microbatch for i in program]
    for instruction, kind in zip(program, (timeline.kinds[k] for k in timeline.kind), strict=True):
        assert kind == Kind.of(instruction.task)
    assert timeline.is_compute.tolist() == [i.task.op not in COMMUNICATION for i in program]
    assert timeline.iteration_time == len(program) + 1
    assert timeline.meta == {"source": "x"}


def test_selecting_kinds() -> None:
    timeline = Timeline.of_program(lower(load(None)), *[np.zeros(len(lower(load(None))))] * 3)
    forward = timeline.of_kind(lambda kind: kind.op == "F")
    assert forward.sum() == 2 * 4
    assert {
        label[1] for label, chosen in zip(timeline.labels(), forward, strict=True) if chosen
    } == {"F"}
    assert not timeline.of_kind(lambda kind: False).any()


def test_an_empty_timeline() -> None:
    timeline = Timeline.of_program(Program([[]]), *[np.zeros(0)] * 3)
    assert (len(timeline), timeline.iteration_time, timeline.labels()) == (0, 0.0, [])
    assert timeline.is_compute.tolist() == []


@pytest.mark.parametrize(("values", "peak"), [([], 0), ([3], 3), ([3, 9, 1], 9)])
def test_peak(values: list[int], peak: int) -> None:
    sample = MemorySamples(np.zeros(len(values)), np.array(values, dtype=np.int64))
    assert sample.peak == peak


def test_spans_of_rows_come_in_order() -> None:
    """Also where ranks are mixed, as a measurement may have them, and where one has none."""
    columns = (np.array([2, 0, 2, 0]), *[np.zeros(4, dtype=int)] * 2, *[np.zeros(4)] * 3)
    timeline = Timeline(3, [Kind(Op("F"), "F", 0, -1, COMPUTE_STREAM, -1, 0)], *columns)
    assert [spans.tolist() for spans in timeline.spans_of_rows()] == [[1, 3], [], [0, 2]]
    empty = Timeline.of_program(Program([[], []]), *[np.zeros(0)] * 3)
    assert [spans.tolist() for spans in empty.spans_of_rows()] == [[], []]

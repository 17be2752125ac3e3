"""The legend names what is on the picture, and nothing else."""

from __future__ import annotations

import pytest

from simulator.charts.timeline import timeline_figure

F, B, SEND = range(3)


def legends(figure) -> list[list[str]]:
    return [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]


def test_operations_and_microbatches_that_occur_are_named(lines) -> None:
    operations, microbatches = legends(timeline_figure(lines.small()))
    assert operations == [
        *("forward", "backward", "send", "receive", "all-reduce"),
        *("waiting for partner", "idle"),
    ]
    assert microbatches == ["microbatch 0", "1"]


def test_nobody_waits_and_no_microbatch_is_told(lines) -> None:
    spans = [(0, SEND, 0, 0.0, 0.0, 1.0)]
    assert legends(timeline_figure(lines.timeline(1, spans))) == [["send", "idle"]]


@pytest.mark.parametrize(("count", "modulo"), [(12, False), (13, True)])
def test_more_microbatches_than_colours_share_them(lines, count: int, modulo: bool) -> None:
    spans = [(0, F, n, n, n, n + 1.0) for n in range(count)]
    microbatches = legends(timeline_figure(lines.timeline(1, spans)))[-1]
    assert (microbatches == ["colour = microbatch modulo 12"]) == modulo
    assert modulo or len(microbatches) == count


def test_numbers_of_other_operations_are_not_microbatches(lines) -> None:
    """A server counts what it accepts in the place of microbatches."""
    spans = [(0, F, 0, 0.0, 0.0, 1.0), (0, SEND, 7, 0.0, 0.0, 1.0)]
    assert legends(timeline_figure(lines.timeline(1, spans)))[-1] == ["microbatch 0"]

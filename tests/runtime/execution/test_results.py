"""A run's figures: what rank 0 answers becomes an execution with statistics and notes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from runtime.execution.results import Execution, execution_of, round_up
from runtime.measurement.merge import to_json


@pytest.fixture
def executed(run) -> Execution:
    ran = run(schedule="gpipe", pipeline=2, microbatches=4, iterations=3, warmup=1)
    answer = {"measurement": to_json(ran.measurement)}
    return execution_of(ran.experiment, ran.program, 1e12, answer)


def test_figures_over_iterations_stand_beside_those_of_the_median_timeline(executed) -> None:
    plain = json.loads(json.dumps(executed.to_json(), allow_nan=False))
    assert plain["iteration_time_s"] == executed.iteration_time_s
    assert executed.iteration_time_s == sorted(executed.measurement.iteration_times)[1]
    assert plain["losses"] == executed.statistics.losses == executed.measurement.losses
    assert plain["notes"] == executed.notes == []
    assert (plain["program"]["hash"], plain["mfu"]) == (executed.program.hash(), executed.mfu)
    assert executed.mfu > 0
    assert executed.timeline.meta["source"] == "measured"


def test_a_loss_that_is_not_finite_is_null_and_a_note(executed) -> None:
    measurement = replace(executed.measurement, losses=[1.0, math.nan, math.inf])
    answer = {"measurement": to_json(measurement)}
    again = execution_of(executed.experiment, executed.program, None, answer)
    plain = json.loads(json.dumps(again.to_json(), allow_nan=False))
    assert plain["losses"] == [1.0, None, None]
    assert plain["notes"] == again.notes
    assert "not finite in 2 of 3 training steps" in again.notes[0]


def test_a_note_says_how_the_experiment_was_understood(executed, monkeypatch) -> None:
    monkeypatch.setattr(type(executed.experiment), "notes", ["so it was understood"])
    answer = {"measurement": to_json(executed.measurement)}
    again = execution_of(executed.experiment, executed.program, None, answer)
    assert again.notes == ["so it was understood"]


@pytest.mark.parametrize(
    ("value", "rounded"), [(1234.0, 1300.0), (0.0312, 0.032), (7.0, 7.0), (0.0, 0.0)]
)
def test_an_advised_pace_has_two_digits(value, rounded):
    assert round_up(value) == pytest.approx(rounded)

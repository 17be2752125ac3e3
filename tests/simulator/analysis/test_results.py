"""The figures of a timeline as dataclasses: properties, JSON, and the table of a notebook."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from simulator import Prediction, load, predict
from simulator.analysis.results import MOST_ROWS, Result
from simulator.timeline.statistics import Statistics
from simulator.units import seconds


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return predict(load(None, ["parallel.data=2", "cluster.preset=laptop"]))


def test_properties_are_the_figures(prediction: Prediction) -> None:
    metrics = prediction.metrics
    assert prediction.iteration_time_s == metrics.iteration_time_s
    assert prediction.bubble_fraction == metrics.bubble_fraction
    assert prediction.bubble_ratio == metrics.bubble_ratio
    assert (prediction.mfu, prediction.hfu) == (metrics.mfu, metrics.hfu)
    assert prediction.tokens_per_s == metrics.tokens_per_s
    assert prediction.ranks[0].peak_memory_bytes == prediction.timeline.memory[0].peak
    assert prediction.peak_memory_bytes == max(sample.peak for sample in prediction.timeline.memory)


def test_the_json_of_a_prediction_has_the_fields_in_their_order(prediction: Prediction) -> None:
    plain = json.loads(json.dumps(prediction.to_json(), allow_nan=False))
    figures = ["program", "iteration_time_s", "bubble_fraction", "bubble_ratio", "mfu", "hfu"]
    figures += ["tokens_per_s", "token", "ranks", "parameters", "steps", "rates"]
    figures += ["ranks_simulated", "staleness", "cluster", "links", "memory_fit", "notes"]
    assert list(plain) == figures
    rank = prediction.ranks[1]
    assert rank.peak_memory_parts is not None
    assert plain["ranks"][1] == vars(rank) | {
        "parameters": rank.parameters,
        "peak_memory_parts": rank.peak_memory_parts._asdict(),
        "stages": [vars(stage) for stage in rank.stages],
    }
    assert plain["program"]["ranks"] == 4


def test_rates_are_those_of_the_iteration_time_over_all_iterations(prediction: Prediction) -> None:
    metrics = prediction.metrics
    slower = metrics.over_iterations(Statistics(2 * metrics.iteration_time_s, 0.0, 0.0))
    assert slower.iteration_time_s == 2 * metrics.iteration_time_s
    for name in ("mfu", "hfu", "tokens_per_s"):
        assert getattr(slower, name) == pytest.approx(getattr(metrics, name) / 2)
    assert slower.bubble_fraction == metrics.bubble_fraction
    assert metrics.over_iterations(None) is metrics


def test_a_result_is_one_line_in_an_interpreter(prediction: Prediction) -> None:
    time = seconds(prediction.iteration_time_s)
    assert repr(prediction).startswith(f"Prediction(iteration {time}, bubble fraction ")
    assert len(repr(prediction)) < 100


def test_a_notebook_shows_the_first_ranks_and_escapes_notes(prediction: Prediction) -> None:
    metrics = replace(prediction.metrics, ranks=prediction.ranks * 5)
    text = Result(recorded=prediction.timeline, metrics=metrics, notes=["a < b"])._repr_html_()
    assert text.count("<tr>") == 1 + MOST_ROWS
    assert "and 4 more ranks" in text
    assert "a &lt; b" in text

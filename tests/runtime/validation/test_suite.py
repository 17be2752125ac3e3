"""The suite of ``twinline validate``: every strategy, and only what runs."""

from __future__ import annotations

import pytest

from runtime.validation import suite
from runtime.validation.suite import cases_of
from simulator.experiment.section import ExperimentError
from simulator.prediction import predict
from simulator.strategies.lowering import lower
from simulator.strategies.registry import OURS
from simulator.strategies.schedules.registry import SCHEDULES


def test_the_full_suite_has_every_strategy():
    cases = cases_of("full")
    assert len({case.name for case in cases}) == len(cases)
    for ranks in (2, 4):
        assert {c.strategy for c in cases if c.ranks == ranks} >= set(SCHEDULES)
    asked = " ".join(case.strategy for case in cases)
    for entry in OURS:
        word = {
            "one device": "gradient accumulation", "sharded data parallel": "zero",
            "context parallel, ring": "context, ring", "expert parallel": "experts",
            "context parallel, Ulysses": "context, ulysses", "mixed precision": "bf16",
            "tensor parallel": "tensor", "selective recomputation": "recompute selective",
            "full recomputation": "recompute full", "hybrids": "data × pipeline",
        }.get(entry.name, entry.name)  # fmt: skip
        assert word in asked, entry.name
    assert {case.group for case in cases} == {"1 rank", "2 ranks", "4 ranks", "paced"}
    assert {case.ranks for case in cases if case.group == "paced"} == {4, 8}


def test_every_case_has_a_program():
    for case in cases_of("full", ranks=[1, 2]):
        assert lower(case.experiment).num_ranks == case.ranks


def test_paced_cases_are_as_long_as_they_should():
    for case in cases_of("full", patterns=["dgx"]):
        split = case.experiment.parallel.tensor > 1
        expected = suite.LONG_STEP_S if split else suite.STEP_S
        assert predict(case.experiment).timeline.iteration_time == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best",), "--suite best: allowed: quick, full"),
        (("quick", [4]), "--ranks 4: no case of suite quick; allowed: 2"),
        (("full", [], ["sorcery"]), "--cases sorcery: matches none"),
    ],
)
def test_what_there_is_not_is_refused(arguments, message):
    with pytest.raises(ExperimentError, match=message):
        cases_of(*arguments)

"""Ranks of a real run have speeds of their own only if they are paced."""

from __future__ import annotations

import pytest

from runtime.execution.running import run
from runtime.execution.uneven_ranks import check_speeds_are_paced
from simulator import load
from simulator.experiment.section import ExperimentError


def test_a_run_without_a_pace_refuses_speeds() -> None:
    slow = load(None, ["slowdown={1 = 2}"])
    with pytest.raises(ExperimentError, match=r"cluster\.slowdown = \{1: 2\.0\}: .* run\.pace"):
        run(slow)
    drawn = load(None, ["jitter=lognormal", "jitter_spread=0.1"])
    with pytest.raises(ExperimentError, match=r"cluster\.jitter = 'lognormal': .* run\.pace"):
        check_speeds_are_paced(drawn)


def test_paced_runs_have_them() -> None:
    for more in (["run.pace=10", "preset=laptop"], ["model=unit"]):
        check_speeds_are_paced(load(None, ["slowdown={1 = 2}", *more]))
    check_speeds_are_paced(load(None, []))

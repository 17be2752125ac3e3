"""A comparison keeps the profile where it is asked to, and loses no result if it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.execution.comparing import compare
from runtime.execution.running import run
from simulator.cluster.profile_file import load_profile


@pytest.fixture
def tiny(experiment):
    return experiment(model="mlp", layers=2, microbatches=2)


def test_a_profile_is_kept_only_where_it_is_asked_for(workers, tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compare(tiny, workers=workers).notes == []
    assert not (tmp_path / "cache").exists()
    outcome = compare(tiny, workers=workers, keep=tmp_path / "mine.json")
    assert outcome.prediction.cluster.profile == load_profile(tmp_path / "mine.json")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("pace", [None, 1e3])
def test_the_mfu_of_a_comparison_refers_to_the_peak_that_a_run_refers_to(workers, tiny, pace):
    """Whatever cluster is predicted for; the cluster's own only if the run is paced to it."""
    choice = tiny.cluster.model_copy(update={"preset": "dgx-h100"})
    setting = tiny.run.model_copy(update={"pace": pace})
    named = tiny.model_copy(update={"cluster": choice, "run": setting})
    outcome, ran = compare(named, workers=workers), run(named, workers=workers)
    measured, predicted = outcome.execution.timeline.meta, outcome.prediction.cluster
    assert measured["peak_flops"] == ran.timeline.meta["peak_flops"] is not None
    own = predicted.peak_flops(named.workload.dtype, named.world_size)
    assert (measured["peak_flops"] == own) == (pace is not None)


def test_a_profile_that_cannot_be_kept_is_a_note(workers, tiny, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    outcome = compare(tiny, workers=workers, keep="saved")
    assert outcome.prediction.iteration_time_s > 0
    assert outcome.execution.iteration_time_s > 0
    (note,) = outcome.notes
    path = Path("/dev/null/twinline/profile.json")
    assert note == f"the profile could not be kept: {path}: Not a directory"
    assert outcome.to_json()["notes"] == [note]
    assert "<table>" in outcome._repr_html_()

"""A comparison keeps the profile where it is asked to, and loses no result if it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.execution.comparing import compare
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

"""Cases that were kept are used again only where they are the same ones, on the same machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime import host
from runtime.validation import kept
from runtime.validation.kept import finished, identity
from runtime.validation.validation import validate_suite
from simulator.experiment.section import ExperimentError


def test_results_of_another_machine_are_not_mixed_in(workers, three, tmp_path, monkeypatch):
    validate_suite(three[:1], tmp_path, workers=workers)
    monkeypatch.setattr(host, "hostname", lambda: "elsewhere")
    monkeypatch.setattr(host, "cores", lambda: 64)
    with pytest.raises(ExperimentError, match=r"cores, this is elsewhere with 64 cores; give"):
        validate_suite(three, tmp_path)


def test_a_changed_case_or_version_is_another_case(experiment, tiny, monkeypatch):
    one = tiny(experiment)
    names = {
        identity(one),
        identity(tiny(experiment, iterations=3)),
        identity(replace(one, size="x")),
    }
    monkeypatch.setattr(kept, "_version", lambda package: "9.9")
    assert len(names | {identity(one)}) == 4


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"id": "x"}'])
def test_a_damaged_file_is_refused(tmp_path, line):
    (tmp_path / "cases.jsonl").write_text(f"{line}\n")
    with pytest.raises(ExperimentError, match=r"cases\.jsonl: line 1 is not a case"):
        finished(tmp_path)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExperimentError, match="file"):
        finished(tmp_path / "file")

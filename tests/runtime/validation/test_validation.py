"""Validation: many cases with one set of processes, kept one by one."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import runtime.cli.validate as cli
from runtime.cli.app import app
from runtime.launch.launcher import LaunchError
from runtime.validation import validation
from runtime.validation.kept import finished
from runtime.validation.report import print_validation
from runtime.validation.validation import Validation, validate_suite
from simulator.experiment.section import ExperimentError

# Running ------------------------------------------------------------------------------


def test_every_case_is_kept_when_it_is_done(workers, three, tmp_path):
    seen = []

    def on_case(done):
        kept = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
        seen.append(done["strategy"])
        assert [one["strategy"] for one in kept] == seen
        assert kept[-1] == done

    shares = []
    found = validate_suite(three, tmp_path, on_case, lambda share, _: shares.append(share), workers)
    assert seen == ["1f1b", "gpipe", "naive"]
    assert [r["strategy"] for r in found.rows] == seen
    assert not found.failed
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    for done in found.rows:
        assert done["predicted_s"] > 0 and done["measured_s"] > 0
        expected = (done["predicted_s"] - done["measured_s"]) / done["measured_s"]
        assert done["error"] == pytest.approx(expected)
        assert len(done["peak_memory_errors"]) == done["ranks"] == 2
        assert done["pacing"]["executions"] > 0
        assert isinstance(done["cause"], str)


def test_a_second_call_measures_what_is_missing(workers, three, tmp_path, monkeypatch):
    validate_suite(three[:1], tmp_path, workers=workers)
    ran = []
    real = validation.comparing.compare

    def compare(experiment, *rest):
        ran.append(experiment.parallel.schedule)
        return real(experiment, *rest)

    monkeypatch.setattr(validation.comparing, "compare", compare)
    found = validate_suite(three, tmp_path, workers=workers)
    assert found.resumed == 1
    assert ran == ["gpipe", "naive"]
    assert len(found.rows) == len(finished(tmp_path)) == 3
    again = validate_suite(three, tmp_path, workers=workers)
    assert again.resumed == 3 and len(ran) == 2
    assert again.rows == found.rows


def test_an_interruption_keeps_what_is_done(workers, three, tmp_path, monkeypatch):
    """As Ctrl-C in the middle of the second case, while it wrote."""
    real = validation.comparing.compare

    def compare(experiment, *rest):
        if experiment.parallel.schedule == "gpipe":
            raise KeyboardInterrupt
        return real(experiment, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(validation.comparing, "compare", compare)
        with pytest.raises(KeyboardInterrupt):
            validate_suite(three, tmp_path, workers=workers)
    with (tmp_path / "cases.jsonl").open("a") as file:
        file.write('{"id": "half a li')
    found = validate_suite(three, tmp_path, workers=workers)
    assert found.resumed == 1 and len(found.done) == 3
    assert len((tmp_path / "cases.jsonl").read_text().splitlines()) == 3


def test_a_case_that_fails_is_reported_and_tried_again(three, tmp_path, monkeypatch):
    def compare(experiment, *_):
        if experiment.parallel.schedule == "gpipe":
            raise LaunchError("rank 1 died in 1F1")
        raise ExperimentError("not today")

    monkeypatch.setattr(validation.comparing, "compare", compare)
    monkeypatch.setattr(validation, "Workers", lambda ranks: Started(ranks))
    found = validate_suite(three, tmp_path)
    assert [r["failure"] for r in found.rows] == ["not today", "rank 1 died in 1F1", "not today"]
    assert found.summary() == {"cases": 0} | dict.fromkeys(validation.STATISTICS)
    assert [started.closed for started in Started.all] == [True] * 3  # gone after a failure
    assert finished(tmp_path) == {}
    console = Console(record=True, width=200)
    print_validation(console, found)
    assert "failed: gpipe, 2 ranks, small: failed: rank 1 died in 1F1" in console.export_text()


class Started:
    """Stands for processes."""

    all: list[Started] = []  # noqa: RUF012

    def __init__(self, ranks):
        self.num_ranks, self.closed = ranks, False
        self.all.append(self)

    def close(self):
        self.closed = True


def test_processes_are_started_once_for_a_number_of_ranks(experiment, tiny, tmp_path, monkeypatch):
    Started.all.clear()
    pool = validation._Pool(None)
    monkeypatch.setattr(validation, "Workers", Started)
    with pool:
        assert pool.of(2) is pool.of(2)
        two = pool.of(2)
        four = pool.of(4)
        assert two.closed and not four.closed
    assert four.closed and len(Started.all) == 2


# Figures ------------------------------------------------------------------------------


def test_summary_by_hand(row):
    errors = [row(error=-0.01, noise=0.02), row(error=0.03), row(error=-0.05)]
    paced = row(error=0.002, group="paced", peak_memory_error=-0.03)
    found = Validation([*errors, row(failure="no"), paced])
    two = found.summary("2 ranks")
    assert two["cases"] == 3 and two["below_noise_floor"] == 1
    assert two["median_abs_error"] == pytest.approx(0.03)
    assert two["p90_abs_error"] == pytest.approx(np.percentile([0.01, 0.03, 0.05], 90))
    assert found.summary()["worst_memory_error"] == pytest.approx(0.03)
    met = {(t["group"], t["figure"]): t["met"] for t in found.targets()}
    assert met["2 ranks", "median_abs_error"] is True
    assert met["4 ranks", "median_abs_error"] is None
    assert met["all", "worst_memory_error"] is False
    assert found.to_json()["failed"] == 1
    noisy = Validation([row(error=0.2, noise=0.3), row(error=0.2), row(error=0.02)])
    within = {t["figure"]: t["within_or_noise"] for t in noisy.targets() if t["group"] == "2 ranks"}
    assert within == {"median_abs_error": 2, "p90_abs_error": 2}


@pytest.fixture
def command(monkeypatch, workers, three):
    """``twinline validate`` with three tiny cases, on the processes of the tests."""
    real = validation.validate_suite

    def on_these(cases, folder, on_case, on_progress):
        return real(cases, folder, on_case, on_progress, workers)

    monkeypatch.setattr(cli, "cases_of", lambda *_: three)
    monkeypatch.setattr(cli.validation, "validate_suite", on_these)
    return lambda *arguments: CliRunner().invoke(app, ["validate", *arguments])


def test_the_command_writes_and_prints(command, tmp_path):
    folder = tmp_path / "new" / "results"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = command("--json", "-o", str(folder))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["cases"]) == 3
    assert set(found) == {
        "cases", "failed", "groups", "targets", *validation.STATISTICS,
    }  # fmt: skip
    assert done.stderr.count("noise floor") == 3
    for name in ("scatter.png", "errors.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    again = command("-o", str(folder))
    assert again.exit_code == 0
    assert "3 of 3 cases are there already" in again.stderr
    assert f"wrote {folder / 'cases.jsonl'}" in again.stdout.replace("\n", "")


def test_the_command_says_how_to_go_on(command, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(validation.comparing, "compare", interrupted)
    stopped = command("-o", str(tmp_path))
    assert stopped.exit_code == 130
    assert "0 of 3 cases are kept in" in stopped.stderr
    assert "the same command goes on" in stopped.stderr


def test_a_failed_case_is_exit_code_1(command, tmp_path, monkeypatch):
    def fails(*_):
        raise ExperimentError("cluster.nodes: too few")

    monkeypatch.setattr(validation.comparing, "compare", fails)
    monkeypatch.setattr(validation, "Workers", Started)
    failed = command("-o", str(tmp_path))
    assert failed.exit_code == 1
    assert failed.stdout.count("failed: cluster.nodes: too few") == 3
    assert not (tmp_path / "scatter.png").exists()


def test_list_names_the_cases():
    listed = CliRunner().invoke(app, ["validate", "--list", "--cases", "1f1b/2"])
    assert listed.exit_code == 0
    assert [line.split(":")[0] for line in listed.stdout.splitlines()] == [
        "1f1b/2/small",
        "interleaved-1f1b/2/small",
    ]

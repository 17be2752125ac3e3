"""A profile holds what a prediction of the same experiment asks for."""

from __future__ import annotations

import sys

import pytest

from runtime import host
from runtime.calibration.calibrator import Calibrator, ranks_per_host
from runtime.execution.comparing import compare
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.keep_profile import keep_profile
from runtime.launch.job import Job
from runtime.measurement.clock import Clock
from runtime.progress import Progress
from simulator.cluster.profile_file import load_profile, parse_profile
from simulator.cluster.resolve import from_profile
from simulator.engine.pass_key import pass_key
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load
from simulator.prediction import predict
from simulator.program.operations import COMMUNICATION, Op
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe

PLAN = {"data": 2, "pipeline": 2, "schedule": "zb-h1", "microbatches": 2, "bucket_mb": 0.003}


def keys_of(experiment, program):
    """Of every distinct compute instruction."""
    layers = describe(experiment)
    return {
        str(pass_key(i.task.op, layers[slice(*i.task.layers)], experiment.workload))
        for i in program
        if i.task.op not in COMMUNICATION
    }


def test_every_pass_and_transfer_of_the_program_is_measured(workers, experiment):
    """Split backward passes, buckets and replicas; in turn with the measured steps."""
    tiny = experiment(**PLAN)
    answer = workers.run(Job(tiny, calibrate=True))
    assert len(answer["measurement"]["losses"]) == tiny.run.iterations
    profile, program = parse_profile(answer["profile"]), lower(tiny)
    assert set(profile.passes) == keys_of(tiny, program)
    for timing in profile.passes.values():
        assert 0 < timing.p10_s <= timing.p90_s
        assert timing.mean_s > 0
        assert timing.samples > 1
    reduced = {i.task.nbytes for i in program if i.task.op is Op.ALL_REDUCE}
    assert len(reduced) > 2
    assert reduced <= {size for size, _ in profile.collectives["ALL_REDUCE"][2]}
    for points in (profile.messages, *profile.collectives["ALL_REDUCE"].values()):
        sizes = [size for size, _ in points]
        assert sizes == sorted(set(sizes))
        for _, timing in points:
            assert timing.busy_s is not None
            assert 0 < timing.mean_s <= timing.busy_s
    assert 0 < profile.transfer_cores <= 2
    assert profile.transfer_loss is not None
    assert 0 < profile.transfer_loss < 1
    assert profile.busy_ranks == 4
    assert len(profile.rounds) == tiny.run.warmup + tiny.run.iterations
    assert predict(tiny, from_profile(profile)).notes == []


@pytest.mark.parametrize("schedule", ["pipedream", "pipedream-2bw"])
def test_updates_between_the_passes_are_measured_too(workers, experiment, schedule):
    """Passes in flight keep their weights."""
    tiny = experiment(schedule=schedule, pipeline=2, microbatches=4, iterations=1)
    answer = workers.run(Job(tiny, calibrate=True))
    assert set(parse_profile(answer["profile"]).passes) == keys_of(tiny, lower(tiny))


def test_a_comparison_calibrates_and_keeps_the_profile(workers, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = experiment(model="mlp", layers=2, microbatches=2)
    outcome = compare(tiny, workers=workers, keep="saved")
    kept = load_profile(tmp_path / "twinline" / "profile.json")
    assert set(kept.passes) == keys_of(tiny, outcome.prediction.program)
    assert outcome.prediction.cluster.profile == kept
    assert predict(tiny, "saved").to_json() == outcome.prediction.to_json()
    # A second experiment adds its passes to those of the first.
    other = parse_profile(workers.run(Job(experiment(), measure=False, calibrate=True))["profile"])
    both = keep_profile(other, tmp_path / "twinline" / "profile.json")
    assert set(both.passes) == set(kept.passes) | set(other.passes)
    assert len(both.passes) == len(kept.passes) + len(other.passes)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("algorithm=ring", "'ring': the collectives of profile of this machine are measured"),
        ("devices_per_node=1", "cluster profile of this machine has 1 × 1 = 1 devices"),
    ],
)
def test_what_a_profile_does_not_allow_is_refused_before_the_run(setting, message):
    settings = [f"cluster.{setting}", "cluster.nodes=1"]
    with pytest.raises(ExperimentError, match=message):
        compare(load(None, settings), on_progress=lambda share, what: pytest.fail("it runs"))


def calibrated(experiment, device) -> Calibrator:
    """After one round."""
    program = lower(experiment)
    calibrator = Calibrator(Rank(experiment, program, 0, device, Progress()), Clock())
    programs = [program, *calibrator.transfers.programs]
    calibrator.begin(Groups(programs, 60.0), lambda share, what: None)
    calibrator.round()
    calibrator.close()
    return calibrator


def test_passes_longer_than_a_round_are_measured_too(alone, experiment, monkeypatch):
    monkeypatch.setattr(sys.modules[Calibrator.__module__], "ROUND_S", 0.0)
    tiny = experiment(microbatches=2)
    program = lower(tiny)
    calibrator = calibrated(tiny, alone)
    profile = calibrator.profile()
    assert profile is not None
    assert set(profile["passes"]) == keys_of(tiny, program)


def test_fewer_ranks_than_cores_share_nothing(alone, experiment, monkeypatch):
    monkeypatch.setattr(host, "cores", lambda: 16)
    tiny = experiment(microbatches=2)
    calibrator = calibrated(tiny, alone)
    profile = calibrator.profile()
    assert profile is not None
    assert profile["capacity"] is None
    assert (calibrator.alone, profile["transfer_cores"]) == ({}, 0.0)
    assert profile["transfer_loss"] is None
    assert list(profile["passes"]) == sorted(profile["passes"])
    for name, timing in profile["passes"].items():
        rounds = [dict(zip(map(str, of), of.values(), strict=True)) for of in calibrator.rounds]
        times = [time for samples in rounds for time in samples.get(name, [])]
        assert timing["samples"] == len(times)
        assert min(times) <= timing["mean_s"] <= max(times)


def test_hosts_that_are_calibrated_together_have_as_many_ranks_each():
    assert ranks_per_host(["a", "a"]) is None
    assert ranks_per_host(["a", "a", "b", "b"]) == 2
    with pytest.raises(ExperimentError, match="2 hosts: they have 2, 1 ranks; allowed: the same"):
        ranks_per_host(["a", "a", "b"])

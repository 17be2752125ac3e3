"""An experiment and its prediction, and which machine it is for."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from simulator import Experiment, ExperimentError, Prediction, load, lower, parse, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import save_profile
from simulator.cluster.resolve import from_profile
from simulator.cluster.timing import Timing
from simulator.engine.pass_key import pass_key
from simulator.program.operations import COMMUNICATION, Op
from simulator.workloads.describe import describe


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this machine's profile would be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "twinline" / "profile.json"


def profile(hostname: str = "", device: str = "cpu", **more) -> Profile:
    machine = {"cores": 2, "hostname": hostname or socket.gethostname()}
    return Profile(machine, device=device, **more)


def test_without_a_profile_it_is_the_laptop(home: Path) -> None:
    prediction = predict(load(None), "saved")
    assert prediction.cluster.name == "laptop"
    assert prediction.notes == [
        "no profile of this machine is saved, so the laptop preset stands in for it; "
        "`twinline calibrate` measures this machine"
    ]
    named = (["cluster.preset=laptop"], ["run.pace=2"], ["workload.model=unit"])
    for overrides in named:  # what is asked for needs no profile
        assert predict(load(None, overrides), "saved").notes == []
    assert predict(load(None)).notes == []


@pytest.mark.parametrize(
    ("saved", "overrides", "expected"),
    [
        (profile(), [], f"profile of {socket.gethostname()}"),
        (profile("elsewhere"), [], "laptop"),
        (profile(device="cuda"), [], "laptop"),
        (profile(device="cuda"), ["run.device=cuda"], f"profile of {socket.gethostname()}"),
        (profile(), ["cluster.preset=dgx-h100"], "dgx-h100"),
        (profile(), ["run.pace=2"], "laptop"),
    ],
)
def test_this_machines_profile_is_used(home: Path, saved, overrides, expected: str) -> None:
    save_profile(saved, home if saved.device == "cpu" else home.with_name("profile-cuda-1.json"))
    assert predict(load(None, overrides), "saved").cluster.name == expected


def test_a_saved_profile_is_used_only_when_asked_for(home: Path) -> None:
    save_profile(profile(), home)
    assert predict(load(None)).cluster.name == "laptop"


def test_the_name_of_a_preset_is_no_cluster() -> None:
    with pytest.raises(ExperimentError, match=r"^cluster = 'dgx-h100': allowed: a Cluster, "):
        predict(load(None), "dgx-h100")


def test_a_damaged_profile_is_ignored_and_said_so(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("{")
    prediction = predict(load(None), "saved")
    assert prediction.cluster.name == "laptop"
    (note,) = prediction.notes
    assert note.startswith("ignored: ")
    assert "\n" not in note
    assert prediction.to_json()["notes"] == [note]


def test_passes_that_were_not_measured_are_counted(home: Path) -> None:
    experiment = load(None, ["parallel.pipeline=1"])
    key = pass_key(Op.FORWARD, describe(experiment), experiment.workload)
    save_profile(profile(passes={str(key): Timing.certain(1.0)}), home)
    (note,) = predict(experiment, "saved").notes
    assert note == (
        "1 of the 3 passes of this plan are in the profile; the others were estimated "
        "with the laptop preset's peak rate of fp32; `twinline calibrate` with this experiment "
        "measures them"
    )


def test_a_profile_that_covers_nothing_says_so(home: Path) -> None:
    save_profile(profile(peak_flops={"fp32": 1e11}), home)
    (note,) = predict(load(None, ["parallel.pipeline=1"]), "saved").notes
    assert note.startswith(
        "none of the 3 passes of this plan are in the profile; all were estimated with "
        "its peak rate of fp32; "
    )


def spread(experiment: Experiment, timing: Timing) -> Profile:
    """Every pass takes that long; what is sent takes no time."""
    layers = describe(experiment)
    keys = {
        str(pass_key(i.task.op, layers[slice(*i.task.layers)], experiment.workload))
        for i in lower(experiment)
        if i.task.op not in COMMUNICATION
    }
    nothing = {Op.ALL_REDUCE: {2: [(8, Timing.certain(0.0))]}}
    return Profile(machine={"cores": 99}, passes=dict.fromkeys(keys, timing), collectives=nothing)


def test_who_waits_for_several_waits_for_the_slowest() -> None:
    """Two ranks with a short or a long pass, equally likely; the longer of two such is
    longer than their mean."""
    experiment = load(None, ["parallel.pipeline=1", "parallel.data=2", "parallel.microbatches=1"])
    timing = Timing.of([1.0, 3.0])

    def step(timing: Timing) -> Prediction:
        return predict(experiment, from_profile(spread(experiment, timing)))

    certain, drawn = step(Timing.certain(2.0)), step(timing)
    assert certain.iteration_time_s == certain.statistics.iteration_time_p90_s
    assert drawn.iteration_time_s > 1.05 * certain.iteration_time_s
    assert drawn.statistics.iteration_time_p10_s < drawn.statistics.iteration_time_p90_s
    assert step(timing).to_json() == drawn.to_json()


def test_a_machine_that_drifts_is_slow_for_whole_steps() -> None:
    """Two rounds in three at normal speed: so is the median step; each twentieth as often."""
    experiment = load(None, ["parallel.pipeline=1"])
    steady = spread(experiment, Timing.certain(1.0))
    drifting = replace(steady, rounds=[[1.0], [3.0], [1.0]])
    usual, found = (predict(experiment, from_profile(p)) for p in (steady, drifting))
    assert found.iteration_time_s == usual.iteration_time_s
    assert found.statistics.iteration_time_p90_s == pytest.approx(
        3 * usual.iteration_time_s, rel=1e-3
    )


def test_every_step_is_as_slow_as_its_slowest_rank() -> None:
    """Each replica is slow in half of the rounds, in no two of them both: every step is."""
    experiment = load(None, ["parallel.pipeline=1", "parallel.data=2"])
    steady = spread(experiment, Timing.certain(1.0))
    uneven = replace(steady, rounds=[[1.0, 1.5], [1.5, 1.0]])
    usual, found = (predict(experiment, from_profile(p)) for p in (steady, uneven))
    passes = usual.ranks[0].compute_s
    longer = found.iteration_time_s - usual.iteration_time_s
    assert longer == pytest.approx(0.5 * passes, rel=0.02)


def test_steps_are_drawn_from_the_seed() -> None:
    plan = ["parallel.pipeline=1", "parallel.microbatches=1"]
    times = []
    for seed in (0, 0, 1):
        experiment = load(None, [*plan, f"run.seed={seed}"])
        cluster = from_profile(spread(experiment, Timing.of([float(n) for n in range(1, 40)])))
        times.append(predict(experiment, cluster).timeline.end.tolist())
    assert times[0] == times[1] != times[2]


def test_what_does_not_fit_is_said() -> None:
    experiment = load(None, ["workload.hidden=16384", "workload.layers=8"])
    (note,) = predict(experiment, load_preset("dgx-a100-80gb")).notes
    assert note.startswith("memory: ")
    assert " of 85.9 GB on the fullest device (rank 0): does not fit, " in note


def test_ranks_of_one_host_must_fit_together() -> None:
    """1.6 GB a rank, most of it parameters and gradients: four fit in 17.2 GB, twelve do not."""
    plan = [
        "workload.hidden=4096",
        "workload.layers=1",
        "parallel.pipeline=1",
        "workload.sequence=1",
    ]
    notes = [
        predict(
            load(None, [*plan, f"parallel.data={ranks}"]),
            load_preset("laptop").resized(devices_per_node=ranks),
        ).notes
        for ranks in (1, 4, 12)
    ]
    assert [len(found) for found in notes] == [0, 0, 1]
    assert "the fullest host (ranks 0–11): does not fit" in notes[2][0]


def test_the_result_is_json_and_names_its_program() -> None:
    experiment = load(None, ["parallel.data=2"])
    program = lower(experiment)
    prediction = predict(experiment, load_preset("laptop"), program)
    assert prediction.program is program
    result = json.loads(json.dumps(prediction.to_json(), allow_nan=False))
    assert result["program"] == {
        "hash": program.hash(),
        "ranks": 4,
        "instructions": len(program),
    }
    assert [row["rank"] for row in result["ranks"]] == [0, 1, 2, 3]
    assert result["iteration_time_s"] == prediction.timeline.iteration_time
    assert result["cluster"] == "laptop"


def test_a_timeline_can_be_traced_back_to_its_experiment() -> None:
    experiment = load(None, ["parallel.microbatches=3", "workload.dtype=bf16"])
    meta = predict(experiment, load_preset("laptop")).timeline.meta
    assert parse(json.loads(json.dumps(meta["experiment"]))) == experiment
    assert meta["hash"] == lower(experiment).hash()
    assert meta["source"] == "predicted"

"""Ranks of torchrun: on two hosts they measure one timeline; wrongly started they say so once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from command_line import TINY
from runtime.execution.running import run
from runtime.torchrun import app
from simulator.cluster.profile_file import load_profile
from simulator.cluster.resolve import resolve
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load
from simulator.prediction import predict
from simulator.timeline.trace import load_trace

TWO = ["--set", "parallel.pipeline=2"]


def refusal() -> str:
    found = CliRunner().invoke(app, TWO)
    assert (found.exit_code, found.stdout) == (2, "")
    return found.stderr


def test_torchrun_with_the_wrong_number_of_ranks_is_one_line(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank prints it; without torchrun the command says how to start it."""
    monkeypatch.chdir(tmp_path)
    assert "torchrun --nproc-per-node" in refusal()
    monkeypatch.setenv("RANK", "0")
    assert "torchrun --nproc-per-node" in refusal()
    for name, value in {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    line = refusal()
    assert "2 ranks; torchrun started 3" in line
    assert line.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # each host says it once
    assert refusal() == ""


def test_a_device_that_is_too_small_is_named_by_a_rank_on_it(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rank of the host may be on a device that is large enough."""

    def refused(*_: object) -> None:
        raise ExperimentError("parallel: GPU 1 needs more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("runtime.torchrun.check_device_memory", refused)
    where = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (where | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert refusal() == "twinline: parallel: GPU 1 needs more\n"


def on_two_hosts(folder: Path, *flags: str, ranks_per_host: int = 1) -> list[tuple[int, str, str]]:
    """Start ranks as torchrun does on two hosts; exit code, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    world = 2 * ranks_per_host
    ranks = []
    for rank in range(world):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % ranks_per_host),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(ranks_per_host),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(root), os.environ.get("PYTHONPATH", ""))),
        }
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(root / "tests/runtime/torchrun_host.py"), *flags],
                cwd=folder,
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = []
    try:
        for rank in ranks:
            said = rank.communicate(timeout=180)
            ended.append((rank.returncode, *said))
    finally:
        for rank in ranks:
            rank.kill()
    return ended


def test_hosts_whose_clocks_differ_measure_one_timeline(tmp_path) -> None:
    """Two hosts, whose clocks are 1000 s apart, with one rank each, on loopback."""
    (tmp_path / "tiny.toml").write_text(TINY)
    (first, *other) = on_two_hosts(tmp_path, "tiny.toml", "--json")
    assert [code for code, _, _ in (first, *other)] == [0, 0]
    assert [said for _, said, _ in other] == [""]  # rank 0 alone reports
    found = json.loads(first[1])
    alone = run(load(tmp_path / "tiny.toml"))
    assert found["program"]["hash"] == alone.program.hash()
    assert found["losses"] == pytest.approx(alone.measurement.losses, rel=1e-12)
    timeline = load_trace(tmp_path / "twinline-out/measured.json")
    assert 0 < timeline.iteration_time < 500
    assert (timeline.posted >= 0).all() and (timeline.start <= timeline.end).all()


def test_hosts_are_calibrated_together(tmp_path) -> None:
    """One rank a host: messages are those between hosts, and a prediction has two hosts."""
    (tmp_path / "tiny.toml").write_text(TINY)
    first, other = on_two_hosts(tmp_path, "tiny.toml", "--calibrate", "hosts.json")
    assert (first[0], other[0], other[1]) == (0, 0, ""), first[2] + other[2]
    assert "message between hosts" in first[1]
    profile = load_profile(tmp_path / "hosts.json")
    assert (profile.messages, profile.ranks_per_host) == ([], 1)
    assert all(0 < timing.mean_s < 500 for _, timing in profile.remote_messages)
    experiment = load(tmp_path / "tiny.toml", [f"cluster.profile={tmp_path / 'hosts.json'}"])
    assert resolve(experiment).nodes == 2
    assert not [note for note in predict(experiment).notes if "laptop" in note]


def test_a_calibration_has_no_timeline_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    found = CliRunner().invoke(app, ["--calibrate", "a.json", "--json"])
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert "--calibrate: allowed without --json" in found.stderr

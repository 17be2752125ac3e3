"""Ranks are started, given work and ended; nothing survives the launcher."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from runtime.execution.running import run
from runtime.launch import launcher as launch
from runtime.launch.job import Job
from runtime.launch.launcher import LaunchError, Workers
from simulator.experiment.section import ExperimentError

ROOT = str(Path(runtime.__file__).parent.parent)
PIPELINE = {"model": "mlp", "pipeline": 2, "microbatches": 3, "schedule": "gpipe"}


LAUNCHER = """
import sys
from runtime.launch.launcher import Workers
from runtime.launch.job import Job
from simulator import parse

experiment = parse({
    "workload": {"model": "unit", "forward": 0.5},
    "parallel": {"pipeline": 2},
    "run": {"iterations": 1, "warmup": 0, "timeout_s": 10000.0},
})
with Workers(2) as workers:
    print(workers._folder.name, flush=True)
    job = Job(experiment, fault=(1, "1B0", "hang"))
    workers.run(job, lambda share, what: print(what, flush=True))
"""


@pytest.mark.parametrize("stopped", ["none", "rank", "agent", "all"])
def test_nothing_survives_a_launcher_that_is_killed(processes_with, wait_until, stopped):
    """Not even a rank that hangs and one that would wait for it for hours, nor processes that
    were stopped and cannot act."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER],
        env=os.environ | {"PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with launcher:
        folder = launcher.stdout.readline().strip()
        while launcher.stdout.readline().strip() != "step":
            assert launcher.poll() is None
        agent, *ranks = sorted(processes_with(folder))
        assert len(ranks) == 2
        chosen = {"none": [], "rank": ranks[:1], "agent": [agent], "all": [agent, *ranks]}
        for pid in chosen[stopped]:
            os.kill(pid, signal.SIGSTOP)
        launcher.kill()
        assert launcher.wait() == -signal.SIGKILL
        try:
            wait_until(lambda: processes_with(folder) == [], "ranks to end", 30.0)
            wait_until(lambda: not Path(folder).exists(), "the folder to go", 30.0)
        finally:
            for pid in processes_with(folder):
                os.kill(pid, signal.SIGKILL)


def test_an_interrupted_start_leaves_nothing(processes_with, monkeypatch):
    """However early Ctrl-C comes, even while the first process is being started."""
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, command, **keys):
            os.kill(os.getpid(), signal.SIGINT)
            super().__init__(command, **keys)
            started.append((self, Path(command[3])))

    monkeypatch.setattr(launch.subprocess, "Popen", Interrupted)
    # A shell that starts this in the background lets it ignore Ctrl-C.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Workers(2)
    finally:
        signal.signal(signal.SIGINT, usual)
    ((agent, folder),) = started
    assert agent.returncode is not None
    assert not folder.exists()
    monkeypatch.undo()
    assert processes_with(str(folder)) == []


def test_ranks_that_do_not_start_are_one_line(monkeypatch):
    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(launch.subprocess, "Popen", refuse)
    with pytest.raises(LaunchError, match=r"could not be started: .*Too many open files$"):
        Workers(2)


def test_two_runs_at_once_do_not_meet(workers, fresh, experiment):
    """Two sets of ranks, each in the middle of a job of its own."""
    import threading

    long = experiment(model="unit", forward=0.05, pipeline=2, iterations=20)
    answers = []
    other = threading.Thread(target=lambda: answers.append(workers.run(Job(long))))
    other.start()
    mine = fresh()
    answers.append(mine.run(Job(experiment(**PIPELINE))))
    mine.close()
    other.join()
    assert sorted(len(a["measurement"]["losses"]) for a in answers) == [2, 20]


def test_too_many_ranks_are_refused_and_the_pool_lives_on(workers, experiment):
    with pytest.raises(ValueError, match="5 ranks on 4 workers"):
        workers.run(Job(experiment(model="unit", pipeline=5)))
    assert workers.run(Job(experiment(model="unit", pipeline=4, iterations=1)))["hash"]


DEADLOCK = "0F0,0B1,0F1,0B0\n1F0,1F1,1B0,1B1\n"
INCOMPLETE = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1\n"


@pytest.mark.parametrize("rows", [DEADLOCK, INCOMPLETE], ids=["deadlock", "incomplete"])
def test_a_program_that_cannot_end_never_starts(experiment, tmp_path, monkeypatch, rows):
    def started(*_):
        raise AssertionError("processes were started")

    monkeypatch.setattr(launch.subprocess, "Popen", started)
    path = tmp_path / "wrong.csv"
    path.write_text(rows)
    with pytest.raises(ExperimentError, match=r"rank [01]|stage [01]") as caught:
        run(experiment(model="mlp", pipeline=2, microbatches=2, schedule=f"csv:{path}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stderr", [io.StringIO(), None], ids=["notebook", "closed"])
def test_workers_need_no_real_stderr(monkeypatch, stderr):
    """Where it is no file, that of the process is inherited."""
    monkeypatch.setattr(sys, "stderr", stderr)
    assert launch._stderr() is None

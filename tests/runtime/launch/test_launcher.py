"""A run that fails says where, ends, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import runtime
from runtime import execution
from runtime.executor.streams import Stream, Ticket
from runtime.launch import launcher as launch
from runtime.launch.job import Job
from runtime.launch.launcher import LaunchError, Workers
from simulator.experiment.section import ExperimentError

ROOT = str(Path(runtime.__file__).parent.parent)
HANG_S = 3.0
PIPELINE = {"model": "mlp", "pipeline": 2, "microbatches": 3, "schedule": "gpipe"}


def processes_with(text):
    """Of everybody, by what stands in the command line."""
    assert text.startswith(tempfile.gettempdir())  # they may be killed
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    mine = str(os.getpid())
    return [int(pid) for pid, *args in lines if args and text in args[0] and pid != mine]


def wait_until(condition, what, limit_s=120.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def fresh():
    """Two ranks of a test's own; the next two already import torch meanwhile."""
    pools = [Workers(2)]

    def take():
        pools.append(Workers(2))
        return pools[-2]

    yield take
    for pool in pools:
        pool.close()


FAULTS = [
    # (rank, instruction, kind), what the message says
    ((1, "1F1", "exit"), r"^rank 1 died in 1F1$"),
    ((0, "0B2", "raise"), r"^rank 0, 0B2: injected fault$"),
    ((0, "0F1", "hang"), r"^rank 0 hangs in 0F1: no progress for 3 s$"),
    ((1, "1SEND_B2", "raise"), r"^rank 1, 1SEND_B2: injected fault$"),
    # Which side of a message hangs cannot be told from outside: both wait for it.
    ((1, "1SEND_B2", "hang"), r"^rank (1, 1SEND_B2|0, 0RECV_B2): no answer within 3 s$"),
]


@pytest.mark.parametrize(
    ("fault", "message"), FAULTS, ids=[f"{fault[2]}-{fault[1]}" for fault, _ in FAULTS]
)
def test_a_rank_that_fails_is_named_and_nothing_is_left(fresh, experiment, fault, message):
    tiny = experiment(**PIPELINE, timeout_s=HANG_S if fault[2] == "hang" else 60.0)
    workers = fresh()
    folder = workers._folder.name
    wait_until(lambda: len(processes_with(folder)) == 3, "agent and two ranks")
    with pytest.raises(LaunchError, match=message) as caught:
        workers.run(Job(tiny, fault=fault))
    assert "\n" not in str(caught.value)
    assert processes_with(folder) == []
    assert not Path(folder).exists()
    with pytest.raises(LaunchError):  # closed, and says so instead of waiting
        workers.run(Job(tiny))


def test_a_rank_that_is_killed_is_named(fresh, experiment):
    """Between two jobs of the same processes."""
    tiny = experiment(**PIPELINE)
    workers = fresh()
    folder = workers._folder.name
    assert workers.run(Job(tiny))["hash"]
    os.kill(max(processes_with(folder)), signal.SIGKILL)  # forked last
    with pytest.raises(LaunchError, match=r"rank 1 died|could not be started"):
        workers.run(Job(tiny))
    assert processes_with(folder) == []


LAUNCHER = """
import sys
from runtime import Workers
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


def test_nothing_survives_a_launcher_that_is_killed():
    """Not even a rank that hangs and one that would wait for it for hours."""
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
        assert len(processes_with(folder)) == 3
        launcher.kill()
        assert launcher.wait() == -signal.SIGKILL
        try:
            wait_until(lambda: processes_with(folder) == [], "ranks to end", 30.0)
            wait_until(lambda: not Path(folder).exists(), "the folder to go", 30.0)
        finally:
            for pid in processes_with(folder):
                os.kill(pid, signal.SIGKILL)


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
        execution.execute(
            experiment(model="mlp", pipeline=2, microbatches=2, schedule=f"csv:{path}")
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stderr", [io.StringIO(), None], ids=["notebook", "closed"])
def test_workers_need_no_real_stderr(monkeypatch, stderr):
    """Where it is no file, that of the process is inherited."""
    monkeypatch.setattr(sys, "stderr", stderr)
    assert launch._stderr() is None


# Parts --------------------------------------------------------------------------------


def test_a_stream_runs_in_order_and_hands_errors_to_who_waits():
    import torch

    stream, seen = Stream("test", torch.device("cpu")), []

    def fail():
        raise KeyError("broken")

    tickets = [stream.submit(lambda n=n: seen.append(n)) for n in range(50)]
    failed, after = stream.submit(fail), stream.submit(lambda: seen.append("after"))
    after.wait(30.0)
    assert seen == [*range(50), "after"]
    for ticket in tickets:
        ticket.wait(0.0)
    with pytest.raises(KeyError, match="broken"):
        failed.wait(30.0)
    stream.close()


def test_a_ticket_does_not_wait_for_ever():
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        Ticket().wait(0.01)


def test_where_a_rank_is_can_be_read_from_outside(tmp_path):
    from runtime import progress

    progress.create(tmp_path / "progress", 3)
    memory = progress.attach(tmp_path / "progress")
    mine = progress.Progress(memory, 1)
    reader = progress.Progress(progress.attach(tmp_path / "progress"), 1)
    assert reader.read() == (-1, False, 0)
    mine.enter(7)
    assert reader.read() == (7, False, 1)
    mine.wait(7)
    assert reader.read() == (7, True, 2)
    mine.leave()
    assert reader.read() == (-1, False, 3)
    assert progress.Progress(memory, 2).read() == (-1, False, 0)

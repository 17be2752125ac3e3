"""What a host's memory cannot hold is refused before anything starts."""

from __future__ import annotations

import pytest

from runtime import host
from runtime.execution import job_start
from runtime.execution.comparing import compare
from runtime.execution.host_memory import check_host_memory
from runtime.execution.running import run
from runtime.launch.job import Job
from runtime.launch.least_memory import least_memory
from simulator import ExperimentError, load, lower

LARGE = ["workload.layers=32", "workload.hidden=8192", "parallel.data=8"]


@pytest.mark.parametrize("command", [run, compare])
def test_a_plan_that_cannot_fit_never_starts(command, monkeypatch) -> None:
    monkeypatch.setattr(host, "available_memory_bytes", lambda: 16 * 10**9)
    monkeypatch.setattr(job_start, "Workers", lambda *_: pytest.fail("processes were started"))
    with pytest.raises(ExperimentError) as caught:
        command(load(None, LARGE))
    line = str(caught.value)
    assert "16 ranks of this plan need at least" in line
    assert "this host has 16 GB available" in line
    assert "run.check_memory = false" in line
    assert "\n" not in line


def test_half_of_the_ranks_need_half_of_the_memory(monkeypatch) -> None:
    """Under torchrun a host runs some of the ranks."""
    experiment = load(None, ["parallel.data=2"])
    program = lower(experiment)
    assert program.num_ranks == 4
    whole = least_memory(Job(experiment), program, range(4))
    monkeypatch.setattr(host, "available_memory_bytes", lambda: whole // 2)
    check_host_memory(Job(experiment), program, 2)
    with pytest.raises(ExperimentError, match="3 ranks of this plan"):
        check_host_memory(Job(experiment), program, 3)


@pytest.mark.parametrize("setting", ["run.check_memory=false", "run.device=cuda"])
def test_what_is_not_checked(monkeypatch, setting: str) -> None:
    monkeypatch.setattr(host, "available_memory_bytes", lambda: 1)
    experiment = load(None, [setting])
    check_host_memory(Job(experiment), lower(experiment), 2)


def test_a_host_that_does_not_say_is_not_checked(monkeypatch) -> None:
    monkeypatch.setattr(host, "available_memory_bytes", lambda: 0)
    experiment = load(None)
    check_host_memory(Job(experiment), lower(experiment), 2)

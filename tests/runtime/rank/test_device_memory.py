"""What a GPU cannot hold is refused, by what all ranks on it need together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from runtime.launch.job import Job
from runtime.launch.least_memory import least_memory
from runtime.rank.device_memory import check_device_memory
from simulator import ExperimentError, load, lower

CUDA = torch.device("cuda", 1)


@pytest.fixture
def has(monkeypatch):
    """Says how much memory the stand-in for a GPU has."""

    def say(nbytes: int) -> None:
        found = SimpleNamespace(total_memory=nbytes)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)

    return say


def job(*sets: str, **keys: bool) -> Job:
    return Job(load(None, ["run.device=cuda", "parallel.pipeline=4", *sets]), **keys)


def test_ranks_that_share_a_gpu_must_fit_together(has) -> None:
    shared = job("cluster.ranks_per_device=2")
    needed = least_memory(shared, lower(shared.experiment), [2, 3])
    has(needed)
    check_device_memory(shared, 3, 3, CUDA)
    check_device_memory(shared, 3, 1, CUDA)  # of another host, whose ranks begin with 2
    has(needed - 1)
    with pytest.raises(ExperimentError, match=r"GPU 1 needs at least .* for rank 2–3; it has"):
        check_device_memory(shared, 3, 3, CUDA)
    check_device_memory(job("cluster.ranks_per_device=2", "run.check_memory=false"), 3, 3, CUDA)
    check_device_memory(shared, 3, 3, torch.device("cpu"))


def test_a_plan_may_fit_into_a_run_and_not_into_a_comparison(has) -> None:
    """Both executors hold what stays: the sum of the two is held against the device."""
    run, compare = job(), job(calibrate=True)
    has(least_memory(run, lower(run.experiment), [0]))
    check_device_memory(run, 0, 0, CUDA)
    with pytest.raises(ExperimentError) as caught:
        check_device_memory(compare, 0, 0, CUDA)
    assert "for rank 0; it has" in str(caught.value)
    assert "`twinline calibrate` and `twinline run` have them once" in str(caught.value)
    assert "\n" not in str(caught.value)

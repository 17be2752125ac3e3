"""Which GPU a rank computes on, with whom it shares it, and how tensors leave it: as far as
that can be told without a GPU, with stand-ins for what CUDA answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from runtime.calibration.calibrator import sharers_of
from runtime.executor import devices
from runtime.executor.devices import AllocatorPeak, backend_of, device_of, patience
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load

CUDA = torch.device("cuda", 0)


def on_gpus(*overrides: str):
    return load(None, ["run.device=cuda", *overrides])


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ones that were chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(devices, "nccl_version", lambda: (2, 29, 3))
    return chosen


def test_ranks_fill_gpus_in_order(two_gpus: list[int]) -> None:
    shared = on_gpus("cluster.ranks_per_device=2")
    assert [device_of(shared, rank).index for rank in range(4)] == [0, 0, 1, 1]
    assert two_gpus == [0, 0, 1, 1]
    assert [device_of(on_gpus(), rank).index for rank in range(2)] == [0, 1]
    with pytest.raises(ExperimentError, match=r"local rank 4 needs GPU 2, this host has 2; .* 4 r"):
        device_of(shared, 4)
    with pytest.raises(ExperimentError, match="at most 2 ranks"):
        device_of(on_gpus(), 2)


def test_a_process_may_see_only_its_own_gpu(two_gpus, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ExperimentError, match="local rank 1 needs GPU 1, this host has 1"):
        device_of(on_gpus(), 1)
    monkeypatch.setenv("LOCAL_RANK", "1")  # another process has the launcher's other GPU
    assert device_of(on_gpus(), 1).index == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(on_gpus(), 1).index == 1


def test_a_host_without_gpus_has_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ExperimentError, match=r"this host has 0; allowed: 'cpu'$"):
        device_of(on_gpus(), 0)


def test_nccl_has_more_patience_than_the_watch() -> None:
    assert patience(60, "gloo").total_seconds() == 60
    assert patience(60, "nccl").total_seconds() > 60


def test_cpus_are_not_shared_in_this_way() -> None:
    with pytest.raises(ExperimentError, match="a run on CPUs has no devices to share"):
        device_of(load(None, ["cluster.ranks_per_device=2"]), 0)


def test_nccl_is_for_ranks_with_a_gpu_of_their_own(two_gpus, monkeypatch) -> None:
    assert backend_of(load(None)) == "gloo"
    assert backend_of(on_gpus()) == "nccl"
    assert backend_of(on_gpus("run.backend=gloo")) == "gloo"
    shared = "cluster.ranks_per_device=2"
    assert backend_of(on_gpus(shared)) == "gloo"
    with pytest.raises(
        ExperimentError, match=r"NCCL 2.29.3 allows one rank on a GPU; .* 2: 'gloo'"
    ):
        backend_of(on_gpus(shared, "run.backend=nccl"))
    monkeypatch.setattr(devices, "nccl_version", lambda: (2, 30, 0))
    assert backend_of(on_gpus(shared, "run.backend=nccl")) == "nccl"
    with pytest.raises(ExperimentError, match=r"NCCL allows 2 ranks on a GPU; .* = 4: 'gloo'$"):
        backend_of(on_gpus("cluster.ranks_per_device=4", "run.backend=nccl"))
    with pytest.raises(ExperimentError, match=r"run.backend = 'nccl': allowed with run.device"):
        load(None, ["run.backend=nccl"])


@pytest.mark.parametrize(("backend", "name"), [("nccl", "cpu:gloo,cuda:nccl"), ("gloo", "gloo")])
def test_ranks_agree_on_the_host_whatever_carries_tensors(two_gpus, monkeypatch, backend, name):
    entered: dict[str, Any] = {}
    monkeypatch.setattr(devices, "nccl_version", lambda: (2, 30, 0))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: entered.update(k, backend=a[0]))
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "")  # so that it is as before in the end
    monkeypatch.delenv("NCCL_MULTI_RANK_GPU_ENABLE")
    monkeypatch.setenv("NCCL_MAX_CTAS", "")
    monkeypatch.delenv("NCCL_MAX_CTAS")
    shared = on_gpus("cluster.ranks_per_device=2", f"run.backend={backend}")
    devices.join(shared, None, 1, CUDA)
    assert entered["backend"] == name
    assert entered["device_id"] == (CUDA if backend == "nccl" else None)
    given = devices.os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE")
    assert given == ("1" if backend == "nccl" else None)
    assert devices.os.environ.get("NCCL_MAX_CTAS") == ("8" if backend == "nccl" else None)
    assert not torch.backends.cudnn.allow_tf32


def test_those_who_share_cores_or_a_device() -> None:
    hosts = ["a", "a", "a", "b", "b"]
    assert [sharers_of(rank, hosts, None) for rank in (0, 3)] == [[0, 1, 2], [3, 4]]
    assert [sharers_of(rank, hosts, 2) for rank in (1, 2, 4)] == [[0, 1], [2], [3, 4]]
    assert sharers_of(4, hosts, 1) == [4]


def test_memory_is_given_back_where_there_is_an_allocator_that_keeps_it(monkeypatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(True))
    devices.give_memory_back(torch.device("cpu"))
    assert given == []
    devices.give_memory_back(CUDA)
    assert given == [True]


def test_what_others_hold_is_no_part_of_a_step(monkeypatch) -> None:
    """Of 1000 bytes 300 are resident in the step, which takes 500 more."""
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1500)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2000)
    peak = AllocatorPeak(CUDA, 300)
    peak.restart()
    assert peak.nbytes() == (800, 2000)
    assert reset == [CUDA]
    assert AllocatorPeak(torch.device("cpu"), 300).nbytes() is None

"""The device on which a rank computes, and the process group through which it talks."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError

SHARING_NCCL = (2, 30)
"""The first version that lets several ranks use one GPU, if it is told to."""


def patience(timeout_s: float, backend: str) -> timedelta:
    """Return how long a process group waits for a peer.

    With NCCL four times as long: when it gives up it ends its own process, and the rank that
    hangs is to be named before that.
    """
    return timedelta(seconds=timeout_s * (4 if backend == "nccl" else 1))


def device_of(experiment: Experiment, local_rank: int) -> torch.device:
    """Return the CPU, or the GPU of this local rank; ranks fill GPUs in order.

    Raises:
        ExperimentError: see `check_devices`.
    """
    check_devices(experiment, local_rank + 1)
    if experiment.run.device == "cpu":
        return torch.device("cpu")
    index = local_rank // experiment.cluster.ranks_per_device
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def check_devices(experiment: Experiment, local_ranks: int) -> None:
    """Refuse to run so many ranks on this host.

    Raises:
        ExperimentError: it has too few GPUs, or there are none to share.
    """
    sharing = experiment.cluster.ranks_per_device
    if experiment.run.device == "cpu":
        if sharing > 1:
            raise ExperimentError(
                f"cluster.ranks_per_device = {sharing}: a run on CPUs has no devices to share; "
                "allowed with run.device = 'cpu': 1"
            )
        return
    count, index = torch.cuda.device_count(), (local_ranks - 1) // sharing
    if index >= count:
        fewer = f", at most {count * sharing} ranks, or more ranks on a GPU "
        fewer += "(cluster.ranks_per_device)"
        raise ExperimentError(
            f"run.device = 'cuda': local rank {local_ranks - 1} needs GPU {index}, this host has "
            f"{count}; allowed: 'cpu'{fewer if count else ''}"
        )


def backend_of(experiment: Experiment) -> str:
    """Return what tensors of passes are sent with: ``nccl`` or ``gloo``.

    Raises:
        ExperimentError: this NCCL is for one rank a GPU.
    """
    run, sharing = experiment.run, experiment.cluster.ranks_per_device
    if run.device == "cpu" or run.backend == "gloo" or (run.backend == "auto" and sharing > 1):
        return "gloo"
    version: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    if sharing > 1 and version < SHARING_NCCL:
        raise ExperimentError(
            f"run.backend = 'nccl': NCCL {'.'.join(map(str, version))} allows one rank on a GPU; "
            f"allowed with cluster.ranks_per_device = {sharing}: 'gloo', or NCCL 2.30"
        )
    return "nccl"


def join(experiment: Experiment, store: Any, rank: int, device: torch.device) -> None:
    """Enter the process group.

    What ranks agree on (clocks, losses, records) they tell each other through gloo, from host
    to host, whatever carries the tensors.

    Raises:
        ExperimentError: see `backend_of`.
    """
    backend = backend_of(experiment)
    nccl = backend == "nccl"
    if nccl and experiment.cluster.ranks_per_device > 1:
        os.environ["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if nccl else "gloo",
        store=store,
        rank=rank,
        world_size=experiment.world_size,
        timeout=patience(experiment.run.timeout_s, backend),
        device_id=device if nccl else None,
    )


class AllocatorPeak:
    """The most that a GPU's allocator held for a step.

    What it holds besides when the step begins, such as tensors of calibration, is left out.

    Args:
        device: whose allocator is asked.
        resident: bytes that the program holds between steps.
    """

    def __init__(self, device: torch.device, resident: int):
        self._device, self._resident, self._others = device, resident, 0

    def restart(self) -> None:
        """Begin a step."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._others = torch.cuda.memory_allocated(self._device) - self._resident

    def nbytes(self) -> int | None:
        """Return the peak since the step began; None: the host's allocator does not say."""
        if self._device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._device) - self._others

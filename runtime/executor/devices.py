"""The device on which a rank computes, and the process group through which it talks."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from runtime.executor.nccl import nccl_version
from simulator.experiment.experiment import Experiment
from simulator.experiment.host_choice import uses_nccl
from simulator.experiment.section import ExperimentError

SHARING_NCCL, MOST_SHARING = (2, 30), 2
"""The first version of NCCL that lets ranks share a GPU, if it is told to, and how many: more
"may exhaust resources and lock NCCL" (its documentation of ``NCCL_MULTI_RANK_GPU_ENABLE``)."""

SHARED_CTAS = "8"
"""The most blocks of threads of a collective where ranks share a GPU (``NCCL_MAX_CTAS``)."""


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
    index = gpu_of(local_rank, experiment.cluster.ranks_per_device)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def gpu_of(local_rank: int, sharing: int) -> int:
    """Return the number of a local rank's GPU among those that its process sees.

    Where the launcher shows every process one GPU of its own (Slurm's ``--gpus-per-task=1``),
    that is the only one.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    own = visible and "," not in visible and "LOCAL_RANK" in os.environ
    return 0 if own else local_rank // sharing


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
    count, index = torch.cuda.device_count(), gpu_of(local_ranks - 1, sharing)
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
    sharing = experiment.cluster.ranks_per_device
    if not uses_nccl(experiment):
        return "gloo"
    if sharing == 1:
        return "nccl"
    version = nccl_version()
    if version < SHARING_NCCL:
        raise ExperimentError(
            f"run.backend = 'nccl': NCCL {'.'.join(map(str, version))} allows one rank on a GPU; "
            f"allowed with cluster.ranks_per_device = {sharing}: 'gloo', or NCCL 2.30"
        )
    if sharing > MOST_SHARING:
        raise ExperimentError(
            f"run.backend = 'nccl': NCCL allows {MOST_SHARING} ranks on a GPU; "
            f"allowed with cluster.ranks_per_device = {sharing}: 'gloo'"
        )
    return "nccl"


def join(experiment: Experiment, store: Any, rank: int, device: torch.device) -> None:
    """Enter the process group.

    What ranks agree on (clocks, losses, records) they tell each other through gloo, from host
    to host, whatever carries the tensors.

    Raises:
        ExperimentError: see `backend_of`.
    """
    # Products of fp32 are not rounded to TF32; torch would do so for convolutions alone.
    torch.backends.cudnn.allow_tf32 = False
    backend = backend_of(experiment)
    nccl = backend == "nccl"
    if nccl and experiment.cluster.ranks_per_device > 1:
        os.environ["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
        os.environ.setdefault("NCCL_MAX_CTAS", SHARED_CTAS)
    if nccl:  # hosts that run ahead launch in order; where they wait, all partners are there
        os.environ.setdefault("NCCL_LAUNCH_ORDER_IMPLICIT", "1")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if nccl else "gloo",
        store=store,
        rank=rank,
        world_size=experiment.world_size,
        timeout=patience(experiment.run.timeout_s, backend),
        device_id=device if nccl else None,
    )


def give_memory_back(device: torch.device) -> None:
    """Let other processes have what this one's allocator keeps of a GPU for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


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

    def nbytes(self) -> tuple[int, int] | None:
        """Return the peaks since the step began; None: the host's allocator does not say.

        Of what tensors held, and of what the allocator had of the device: more, where blocks of
        one stream or size did not serve another.
        """
        if self._device.type != "cuda":
            return None
        held = torch.cuda.max_memory_allocated(self._device) - self._others
        return held, torch.cuda.max_memory_reserved(self._device)

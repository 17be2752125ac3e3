"""Software that GPUs need is there, and ranks can be forked before the first use of a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

from runtime.executor.nccl import nccl_version

ROOT = Path(__file__).resolve().parents[2]
ON_CPUS = (
    "tests/runtime/executor/test_devices.py",
    "tests/runtime/numerics/test_oracles.py",
    "tests/runtime/numerics/test_zero.py",
    "tests/runtime/numerics/test_tensor.py",
    "tests/runtime/numerics/test_expert.py",
)
"""What must hold with this version of torch before anything on its GPUs can."""


def test_versions_are_those_that_are_loaded(gpu) -> None:
    compiled = torch.cuda.nccl.version()
    gpu.add("NCCL loaded, and compiled for", "the same", f"{nccl_version()}, {compiled}", True)
    assert nccl_version() >= (2, 18, 0)
    assert gpu.machine["CUDA"] == torch.version.cuda


def test_importing_a_rank_leaves_gpu_and_threads_alone(gpu, probe) -> None:
    assert probe("untouched") == {"initialised": 0.0, "threads": 1.0}


def test_ranks_on_cpus_pass_with_this_torch(gpu, environment) -> None:
    parallel = ("-n", "8") if importlib.util.find_spec("xdist") else ()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *parallel, *ON_CPUS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    gpu.add("tests on CPUs with this torch", "pass", done.stdout.splitlines()[-1:], True)
    assert done.returncode == 0, done.stdout[-4000:]

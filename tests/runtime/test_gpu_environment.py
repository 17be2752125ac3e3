"""Variables that GPUs need are set before torch is imported, and the user's own are kept."""

from __future__ import annotations

import os
import subprocess
import sys

from runtime import gpu_environment
from runtime.gpu_environment import GPU_ENVIRONMENT, WORK_QUEUES
from runtime.launch.launcher import _environment
from runtime.validation.suite import cases_of
from simulator.program.operations import MESSAGES
from simulator.strategies.lowering import lower


def test_ranks_get_enough_work_queues(monkeypatch) -> None:
    for name in GPU_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert _environment().items() >= GPU_ENVIRONMENT.items()
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "16")
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in gpu_environment.missing()
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in _environment()


def test_ranks_of_torchrun_get_them_before_torch_is_imported() -> None:
    script = (
        "import os, sys, runtime.__main__ as m\n"
        "assert 'torch' not in sys.modules\n"
        "sys.argv = ['runtime', '--help']\n"
        "try:\n    m.main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['CUDA_DEVICE_MAX_CONNECTIONS'])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in GPU_ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split()[-1] == str(WORK_QUEUES)


def test_no_plan_of_the_suite_needs_more_work_queues_than_there_are() -> None:
    """A message occupies the stream of its thread and one of NCCL's own."""
    for case in cases_of("full"):
        for listed in lower(case.experiment).columns:
            streams = {task.stream for task in listed.tasks}
            messages = {task.stream for task in listed.tasks if task.op in MESSAGES}
            assert 1 + len(streams) + len(messages) <= WORK_QUEUES

"""Failures on a GPU: one line that names rank and instruction, and the memory is given back."""

from __future__ import annotations

import shutil
import time

import pytest

from gpu_report import smi, used_bytes
from runtime.launch.job import Job
from runtime.launch.launcher import LaunchError, Workers
from simulator.experiment_file import load

TWO = ("run.device=cuda", "cluster.ranks_per_device=2", "parallel.pipeline=2", "run.timeout_s=5")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("exit", r"rank 1 died in 1F1"),
        ("hang", r"rank 1 hangs in 1F1"),
        ("raise", r"rank 1, 1F1: injected fault"),
    ],
)
def test_a_fault_is_named(gpu, kind: str, says: str) -> None:
    before = used_bytes(smi())
    with Workers(2) as two, pytest.raises(LaunchError, match=says) as raised:
        two.run(Job(load(None, [*TWO]), fault=(1, "1F1", kind)))
    assert "\n" not in str(raised.value)
    given_back(before)


def test_a_plan_that_does_not_fit_is_one_line(gpu, twinline) -> None:
    before = used_bytes(smi())
    keys = ("run.device=cuda", "parallel.pipeline=1", "workload.layers=1", "workload.heads=16")
    sets = (*keys, "workload.sequence=65536", "run.check_memory=false")
    code, _, said = twinline("run", *(word for key in sets for word in ("--set", key)))
    assert (code, said.count("\n")) == (1, 1)
    assert "rank 0, 0F0: " in said and "out of memory" in said
    given_back(before)


def test_no_access_is_out_of_bounds(gpu, twinline) -> None:
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer")
    short = ("run.iterations=1", "run.warmup=0", "run.timeout_s=240")  # all is many times slower
    keys = ("run.device=cuda", "parallel.pipeline=1", *short)
    sanitizer = ("compute-sanitizer", "--tool", "memcheck", "--target-processes", "all")
    code, out, said = twinline(
        "run", *(word for key in keys for word in ("--set", key)), wrapped=sanitizer
    )
    found = [line for line in (out + said).splitlines() if "ERROR SUMMARY" in line]
    gpu.add("compute-sanitizer", "0 errors", found or said[-200:], bool(found))
    assert code == 0
    assert all("ERROR SUMMARY: 0 errors" in line for line in found)


def given_back(before: int) -> None:
    deadline = time.monotonic() + 20
    while used_bytes(smi()) > before + (1 << 28):
        assert time.monotonic() < deadline, "memory of a GPU was not given back"
        time.sleep(0.2)

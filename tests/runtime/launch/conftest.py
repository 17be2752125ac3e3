"""Ranks that a test may break, and what processes are left of them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time

import pytest

from runtime.launch.launcher import Workers


def list_processes(text):
    """Return the processes of everybody, by what stands in the command line."""
    assert text.startswith(tempfile.gettempdir())  # they may be killed
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    mine = str(os.getpid())
    return [int(pid) for pid, *args in lines if args and text in args[0] and pid != mine]


@pytest.fixture(scope="session")
def processes_with():
    """`list_processes`, for tests: the modules here cannot import each other."""
    return list_processes


@pytest.fixture(scope="session")
def wait_until():
    """Waits for a condition."""

    def wait(condition, what, limit_s=120.0):
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what}"
            time.sleep(0.05)

    return wait


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

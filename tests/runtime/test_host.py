"""What a host says about itself agrees with what the operating system says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtime import host


def test_a_process_may_use_no_more_cores_than_there_are():
    assert 1 <= host.cores() <= (os.cpu_count() or 1)


def test_cores_follow_the_affinity_of_the_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert host.cores() == 3


def test_memory_is_unknown_rather_than_wrong(monkeypatch):
    def refuse(name):
        raise ValueError(name)

    assert host.memory_bytes() > 1 << 28
    monkeypatch.setattr(os, "sysconf", refuse)
    assert host.memory_bytes() == 0


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux only")
def test_available_memory_is_part_of_the_memory():
    assert 1 << 20 < host.available_memory_bytes() <= host.memory_bytes()


def test_the_host_is_named():
    assert host.hostname() == socket.gethostname()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only")
def test_the_processor_is_a_name_without_spaces_around_it():
    assert host.processor() == host.processor().strip()

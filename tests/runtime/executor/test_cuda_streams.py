"""Streams of a GPU are made once, and order is left to the device (here a stand-in for it)."""

from __future__ import annotations

import contextlib

import pytest
import torch

from runtime.executor import cuda_streams, streams
from runtime.executor.cuda_streams import CudaStreams

DEVICE = torch.device("cuda", 0)


class StandIn:
    """Notes what a GPU is asked for."""

    def __init__(self):
        self.asked, self.made, self.current = [], 0, "default"

    def stream(self, name):
        return Stream(name, self.asked)

    @contextlib.contextmanager
    def on(self, stream):
        self.asked.append(("on", stream.name))
        yield


class Stream:
    def __init__(self, name, asked):
        self.name, self.asked = name, asked

    def wait_event(self, event):
        self.asked.append((self.name, "waits"))


class Event:
    passed = False

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        stream.asked.append((stream.name, "records"))

    def query(self):
        return Event.passed


@pytest.fixture
def gpu(monkeypatch):
    found = StandIn()

    def own(device, priority):
        assert priority < 0
        found.made += 1
        return found.stream(f"own {found.made}")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: found.stream("default"))
    monkeypatch.setattr(torch.cuda, "Stream", own)
    monkeypatch.setattr(cuda_streams, "on_cuda_stream", found.on)
    streams._cuda_stream.cache_clear()
    yield found
    streams._cuda_stream.cache_clear()


def test_executors_share_the_streams_of_a_process(gpu):
    """There are few of them; passes run on the stream of everything else."""
    for _ in range(3):
        found = CudaStreams(DEVICE)
        for name in ("compute", "send:1", "recv:1", "send:1"):
            found.stream(name)
    # Those of the executor that waits, which has a thread for each.
    assert streams.own_cuda_stream(DEVICE, "send:1") is streams.own_cuda_stream(DEVICE, "send:1")
    assert streams.own_cuda_stream(torch.device("cpu"), "send:1") is None
    assert gpu.made == 2
    work = []
    found.stream("compute").launch(lambda: work.append("done"))
    assert (work, gpu.asked) == (["done"], [("on", "default")])


def test_who_waits_is_the_device(gpu):
    found = CudaStreams(DEVICE)
    event, stream = found.event(), found.stream("send:1")
    stream.record(event)
    stream.wait(event)
    assert gpu.asked == [("own 1", "records"), ("own 1", "waits")]
    assert not event.query()
    assert not event.wait(0.001)
    Event.passed = True
    assert event.wait(0.0)
    Event.passed = False

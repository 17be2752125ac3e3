"""Communicators carry what a program sends, through the host where the backend needs that."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from runtime.executor import groups
from runtime.executor.groups import Groups, NullGroups
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task


class Work:
    """A transfer that takes place when it is waited for."""

    def __init__(self, wait: Callable[[], object]):
        self.wait = wait


class Elsewhere:
    """Stands for the memory of a GPU: what is not copied to the host is not sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.copies: list[Tensor] = []
        monkeypatch.setattr(groups, "on_host", self.copy)

    def copy(self, tensor: Tensor) -> Tensor:
        self.copies.append(tensor.clone())
        return self.copies[-1]

    def sent(self, tensor: Tensor) -> bool:
        return any(tensor is copy for copy in self.copies)


@pytest.mark.parametrize(
    "op", [Op.ALL_REDUCE, Op.ALL_GATHER, Op.REDUCE_SCATTER, Op.ALL_TO_ALL, Op.SHIFT]
)
def test_gloo_carries_tensors_through_the_host(alone, monkeypatch, op) -> None:
    """The result arrives where it is wanted, and only copies were sent."""
    memory = Elsewhere(monkeypatch)

    def fake(*tensors: Tensor, group: object, async_op: bool, **_: object) -> Work:
        assert all(map(memory.sent, tensors)) and async_op
        return Work(lambda: tensors[0].copy_(tensors[-1] * 2))

    monkeypatch.setattr(dist, "all_reduce", fake)
    monkeypatch.setitem(groups.COLLECTIVE, op, fake)
    carried = Groups((), 60.0)
    task = Task(op, 0, stream=Stream.along("data"), group=(0,))
    carried._collectives[task.stream, task.group] = None
    given, result = torch.ones(4), torch.zeros(4)
    wait = carried.collective(task, given if op is Op.ALL_REDUCE else result, given)
    assert torch.equal(given, torch.ones(4)) and torch.equal(result, torch.zeros(4))
    wait()
    twice = torch.full((4,), 2.0)
    assert torch.equal(given if op is Op.ALL_REDUCE else result, twice)
    assert op is Op.ALL_REDUCE or torch.equal(given, torch.ones(4))


def test_messages_through_the_host(alone, monkeypatch) -> None:
    memory, wire = Elsewhere(monkeypatch), []
    monkeypatch.setattr(dist, "send", lambda tensor, *_, **__: wire.append(tensor))
    monkeypatch.setattr(dist, "recv", lambda tensor, *_, **__: tensor.copy_(wire.pop()))
    carried, given, result = Groups((), 60.0), torch.ones(4), torch.zeros(4)
    carried.send(given, 0, 1, 0)
    assert memory.sent(wire[0])
    carried.receive(result, 1, 0, 0)
    assert torch.equal(result, given)


def test_with_nccl_tensors_are_sent_as_they_are(alone, monkeypatch) -> None:
    wire: list[Tensor] = []
    monkeypatch.setattr(dist, "send", lambda tensor, *_, **__: wire.append(tensor))
    given = torch.ones(4)
    Groups((), 60.0, "nccl").send(given, 0, 1, 0)
    assert wire[0] is given


def test_nobody_sends_noise_of_the_usual_size_after_the_usual_time(monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(groups, "NOISE_VALUES", 4)
    asked: list[tuple[Op, int, int]] = []

    def seconds(op: Op, size: int, nbytes: int) -> float:
        asked.append((op, size, nbytes))
        return 100.0

    nobody, result = NullGroups(seconds, torch.device("cpu")), torch.zeros(6)
    given = torch.ones(6)
    nobody.send(given, 0, 1, 0)
    nobody.receive(result, 1, 0, 0)
    assert given.tolist() == [1.0] * 6
    assert torch.equal(result[:2], result[4:])  # the noise is repeated
    assert 0 < float(result.abs().max()) < 1
    nobody.collective(Task(Op.ALL_REDUCE, 0, group=(0, 1, 2), nbytes=24), given, given)()
    assert asked == [(Op.SEND, 2, 24), (Op.SEND, 2, 24), (Op.ALL_REDUCE, 3, 24)]
    assert all(99 < lasted <= 100 for lasted in slept)

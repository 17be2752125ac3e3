"""Communicators carry what a program sends, through the host where the backend needs that."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.executor import groups, null_groups
from runtime.executor.groups import Groups
from runtime.executor.null_groups import NullGroups
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task


class Work:
    """A transfer that takes place when it is waited for."""

    def __init__(self, wait: Callable[[], object]):
        self.wait = wait


class Elsewhere:
    """Stands for the memory of a GPU: only buffers of the host can be sent.

    Attributes:
        buffers: those that were made.
        copied: how often a tensor was copied from a GPU.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.buffers: list[Tensor] = []
        monkeypatch.setattr(groups.host_buffers, "is_on_host", lambda tensor: False)
        monkeypatch.setattr(torch, "empty", self.make)

    def make(self, *shape: object, **keys: object) -> Tensor:
        self.buffers.append(torch.full(*shape, -1.0, dtype=keys["dtype"]))  # garbage
        return self.buffers[-1]

    def sent(self, tensor: Tensor) -> bool:
        return any(tensor is buffer for buffer in self.buffers)


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
    """Buffers serve again and again, and nothing is copied from where a message will land."""
    memory, wire = Elsewhere(monkeypatch), []
    sent: list[bool] = []

    def send(tensor: Tensor, *_: object, **__: object) -> None:
        sent.append(memory.sent(tensor))
        wire.append(tensor.clone())

    def receive(tensor: Tensor, *_: object, **__: object) -> None:
        sent.append(memory.sent(tensor))
        tensor.copy_(wire.pop())

    monkeypatch.setattr(dist, "send", send)
    monkeypatch.setattr(dist, "recv", receive)
    carried, given = Groups((), 60.0), torch.ones(4)
    for number in range(3):
        result, before = torch.zeros(4), given.clone()
        carried.send(given.mul_(number + 1), 0, 1, 0)
        carried.receive(result, 1, 0, 0)
        assert torch.equal(result, before * (number + 1))
    assert all(sent) and len(memory.buffers) == 1


def test_messages_under_way_at_once_have_buffers_of_their_own(alone, monkeypatch) -> None:
    memory = Elsewhere(monkeypatch)
    monkeypatch.setitem(
        groups.COLLECTIVE,
        Op.ALL_GATHER,
        lambda result, given, group, async_op: Work(lambda: result.copy_(given.repeat(1) + 1)),
    )
    carried = Groups((), 60.0)
    tasks = [Task(Op.ALL_GATHER, 0, stream=Stream.along(axis), group=(0,)) for axis in "ab"]
    results = [torch.zeros(4), torch.zeros(4)]
    waits = []
    for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
        carried._collectives[task.stream, task.group] = None
        waits.append(carried.collective(task, result, torch.full((4,), float(number))))
    for wait in waits:
        wait()
    assert [result.tolist() for result in results] == [[1.0] * 4, [2.0] * 4]
    assert len(memory.buffers) == 4


def test_with_nccl_tensors_are_sent_as_they_are(alone, monkeypatch) -> None:
    wire: list[Tensor] = []
    monkeypatch.setattr(dist, "send", lambda tensor, *_, **__: wire.append(tensor))
    given = torch.ones(4)
    Groups((), 60.0, "nccl").send(given, 0, 1, 0)
    assert wire[0] is given


def test_with_nccl_hosts_meet_in_the_group_of_what_comes(alone, monkeypatch) -> None:
    """With gloo, on the host; passes meet nobody, and gloo's transfers meet by themselves."""
    reduce = Task(Op.ALL_REDUCE, 0, stream=Stream.along("data"), group=(0,))
    given = Task(Op.SEND, 0, stream=Stream.send(1), peer=1)
    program = Program([[Instruction(task) for task in (Task(Op.FORWARD, 0), reduce, given)]])
    monkeypatch.setattr(dist, "new_group", lambda ranks, **_: str(ranks))
    met: list[object] = []

    def all_reduce(tensor: Tensor, group: object) -> None:
        assert tensor.device.type == "cpu" and tensor.numel() == 1
        met.append(group)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    for backend, groups_met in (("nccl", ["[0]", "[0, 1]"]), ("gloo", [])):
        made = Groups([program], 60.0, backend)
        for instruction in program.ranks[0]:
            made.meet(instruction)
        assert met == groups_met
        met.clear()


def test_nobody_sends_noise_of_the_usual_size_after_the_usual_time(monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(null_groups, "NOISE_VALUES", 4)
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


@pytest.mark.parametrize(("device", "launches"), [("cpu", 3), ("meta", 1)])
def test_noise_is_one_launch_on_a_device(monkeypatch, device: str, launches: int) -> None:
    """However large the tensor: each launch keeps the host from the passes beside it."""
    monkeypatch.setattr(null_groups, "NOISE_VALUES", 4)
    nobody = NullGroups(lambda op, size, nbytes: 0.0, torch.device("cpu"))
    result = torch.empty(10, device=device)
    seen: list[str] = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Counted():
        nobody.receive(result, 1, 0, 0)
    assert sum(name.startswith(("copy_", "normal_")) for name in seen) == launches


def test_every_communicator_is_used_once_in_one_order_before_the_first_step(alone) -> None:
    """Each operation on tensors of the shapes that the backend asks for; here, alone in a group."""
    used: list[tuple[Op, tuple[int, ...]]] = []

    class Watched(Groups):
        def collective(self, task: Task, result: Tensor, tensor: Tensor) -> Callable[[], object]:
            used.append((task.op, task.group))
            return super().collective(task, result, tensor)

    ops = sorted(COLLECTIVES - {Op.SHIFT, Op.SHIFT_BACK}, key=lambda op: op.value)
    data, tensor = Stream.along("data"), Stream.along("tensor")
    tasks = [Task(op, 0, stream=data, group=(0,), root=0) for op in reversed(ops)]
    tasks += [tasks[0], Task(Op.ALL_REDUCE, 0, stream=tensor, group=(0,))]
    carried = Watched([Program([[Instruction(task, 0) for task in tasks]])], 60.0)
    carried.warm_up(torch.device("cpu"))
    assert used == [*((op, (0,)) for op in ops), (Op.ALL_REDUCE, (0,))]


def test_messages_are_warmed_up_by_both_ranks_in_one_order(alone, monkeypatch) -> None:
    """With NCCL each direction of a pair is a communicator of its own."""
    made: list[list[int]] = []
    monkeypatch.setattr(dist, "new_group", lambda ranks, timeout: made.append(ranks) or len(made))
    wire: list[tuple[str, int, int]] = []
    monkeypatch.setattr(dist, "send", lambda _, to, group, tag: wire.append(("to", to, group)))
    monkeypatch.setattr(dist, "recv", lambda _, of, group, tag: wire.append(("from", of, group)))
    send = [Task(Op.SEND, 0, stream=Stream.send(to), peer=to, nbytes=8) for to in (1, 0)]
    receive = [Task(Op.RECV, 0, stream=Stream.recv(of), peer=of, nbytes=8) for of in (1, 0)]
    lists = [[send[0], receive[0]], [receive[1], send[1]]]
    program = Program([[Instruction(task, 0) for task in tasks] for tasks in lists])
    Groups([program], 60.0, "nccl").warm_up(torch.device("cpu"))
    assert made == [[0, 1], [0, 1]]
    assert wire == [("to", 1, 1), ("from", 1, 2)]

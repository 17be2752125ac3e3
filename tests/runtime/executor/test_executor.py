"""The executor walks a list in order, tells its observers, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch

from runtime.executor.context import RankContext
from runtime.executor.errors import ExecutionError
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.null_groups import NullGroups
from runtime.executor.observers import Observer
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from runtime.progress import Progress
from simulator.strategies.lowering import lower

PLANS = [
    {"pipeline": 2, "schedule": "dualpipe-v", "virtual_stages": 2, "microbatches": 4},
    {"pipeline": 2, "schedule": "zb-h1", "model": "moe-gpt"},
    {"pipeline": 2, "schedule": "pipedream"},
    {"data": 2, "zero": 3, "pipeline": 1},
    {"tensor": 2, "pipeline": 1},
    {"context": 2, "pipeline": 1, "context_style": "ulysses", "recompute": "selective"},
    {"expert": 2, "pipeline": 1, "model": "moe-gpt"},
    {"pipeline": 2, "recompute": "full", "optimizer": "adam", "clip_norm": 1.0},
]


def tensors() -> int:
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: " ".join(map(str, plan.values())))
def test_a_step_leaves_nothing_behind(alone, experiment, plan):
    """Without the help of the cycle collector: else memory grows until that comes by, and
    every pass pays for fresh pages."""
    tiny = experiment(**plan)
    nobody = NullGroups(lambda op, size, nbytes: 0.0, torch.device("cpu"))
    rank = Rank(tiny, lower(tiny), 0, alone, Progress())
    executor = Executor(RankContext(rank, nobody))
    numbers = {i.batch for i in executor.instructions}
    batches = dict.fromkeys(numbers, microbatch(tiny, 0, 0, alone))
    try:
        executor.step(batches)
        gc.collect()
        gc.disable()
        executor.step(batches)
        before = tensors()
        executor.step(batches)
        assert tensors() == before
    finally:
        gc.enable()
        executor.close()


class Witness(Observer):
    """Notes what it is told."""

    def __init__(self, name, told):
        self.name, self.told = name, told

    def begin_step(self):
        self.told.append((self.name, "begin"))

    def before(self, instruction):
        self.told.append((self.name, f"before {instruction.label}"))

    def after(self, instruction, begin):
        assert begin <= time.perf_counter()
        self.told.append((self.name, f"after {instruction.label}"))


def lone(experiment, device, **keys):
    """An experiment for one rank, its context and batches."""
    tiny = experiment(microbatches=2, **keys)
    rank = Rank(tiny, lower(tiny), 0, device, Progress())
    batches = {(0, index): microbatch(tiny, 0, index, device) for index in range(2)}
    return RankContext(rank, Groups((), 60.0)), batches


def test_observers_are_told_of_every_instruction_in_their_order(alone, experiment):
    context, batches = lone(experiment, alone)
    told = []
    executor = Executor(context, [Witness("first", told), Witness("second", told)])
    executor.step(batches)
    executor.close()
    labels = [i.label for i in executor.instructions]
    expected = ["begin", *(f"{when} {label}" for label in labels for when in ("before", "after"))]
    assert told == [(name, what) for what in expected for name in ("first", "second")]
    assert all(p <= e for p, e in zip(executor.posted, executor.end, strict=True))
    assert executor.end == sorted(executor.end)  # one stream


def test_an_instruction_that_fails_is_named(alone, experiment):
    context, batches = lone(experiment, alone)

    class Broken(Observer):
        def before(self, instruction):
            if instruction.label == "0B0":
                raise KeyError("broken")

    executor = Executor(context, [Broken()])
    with pytest.raises(ExecutionError, match=r"^rank 0, 0B0: 'broken'$"):
        executor.step(batches)
    executor.close()


def test_a_failure_on_a_stream_reaches_who_waits_for_it(alone, experiment):
    """And is named after the instruction that failed, not after the one that waited."""
    tiny = experiment(tensor=2, pipeline=1, microbatches=2)
    rank = Rank(tiny, lower(tiny), 0, alone, Progress())

    def broken(op, size, nbytes):
        raise RuntimeError("[gloo/unbound_buffer.cc:78] Timed out waiting 1ms for recv")

    executor = Executor(RankContext(rank, NullGroups(broken, alone)))
    batches = {(0, index): microbatch(tiny, 0, index, alone) for index in range(2)}
    with pytest.raises(ExecutionError, match=r"^rank 0, 0ALL_\S+: no answer within 60 s$"):
        executor.step(batches)
    executor.close()


class Whereabouts(NullGroups):
    """Notes the threads in which collectives begin and are waited for, and messages are sent."""

    def __init__(self):
        super().__init__(lambda op, size, nbytes: 0.0, torch.device("cpu"))
        self.threads = []

    def send(self, *arguments):
        self.threads.append(threading.current_thread())
        super().send(*arguments)

    def collective(self, *arguments):
        self.threads.append(threading.current_thread())
        ends = super().collective(*arguments)

        def wait():
            self.threads.append(threading.current_thread())
            ends()

        return wait


class Slow(Observer):
    takes_time = True


@pytest.mark.parametrize(
    ("plan", "observers", "here"),
    [
        ({"tensor": 2, "pipeline": 1}, [], True),
        ({"tensor": 2, "pipeline": 1}, [Slow()], False),  # it must not hold the walk up
        ({"pipeline": 2}, [], False),
    ],
    ids=["collectives", "with observers that take time", "messages"],
)
def test_who_walks_the_list_begins_and_awaits_collectives(alone, experiment, plan, observers, here):
    """And nothing else: what blocks is for the threads of streams."""
    tiny, groups = experiment(microbatches=2, **plan), Whereabouts()
    executor = Executor(
        RankContext(Rank(tiny, lower(tiny), 0, alone, Progress()), groups), observers
    )
    executor.step({(0, index): microbatch(tiny, 0, index, alone) for index in range(2)})
    executor.close()
    assert groups.threads
    assert {thread is threading.current_thread() for thread in groups.threads} == {here}
    assert all(p <= e for p, e in zip(executor.posted, executor.end, strict=True))

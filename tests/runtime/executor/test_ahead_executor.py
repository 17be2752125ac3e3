"""A host that runs ahead gets the numbers of one that waits, and needs every wait."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
import torch

from echo_groups import EchoGroups
from runtime.executor.ahead_executor import AheadExecutor, most_ahead
from runtime.executor.context import RankContext
from runtime.executor.device_streams import DeviceStream, DeviceStreams, Event
from runtime.executor.errors import ExecutionError
from runtime.executor.executor import Executor
from runtime.executor.host_streams import HostStreams
from runtime.executor.observers import Observer
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from runtime.progress import Progress
from simulator.program.stream import COMPUTE_STREAM
from simulator.strategies.lowering import lower

PLANS = [
    {"pipeline": 1},
    {"pipeline": 2, "schedule": "zb-h1", "model": "moe-gpt"},
    {"pipeline": 2, "schedule": "pipedream", "horizon": 2},
    {"data": 2, "zero": 1, "pipeline": 1, "optimizer": "adam", "horizon": 2},
    {"data": 2, "zero": 3, "pipeline": 1, "bucket_mb": 0.001, "horizon": 2},
    {"tensor": 2, "pipeline": 1, "sequence_parallel": True},
    {"context": 2, "pipeline": 1, "recompute": "selective"},
    {"pipeline": 2, "recompute": "full", "optimizer": "adam", "clip_norm": 1.0, "data": 2},
    {"data": 2, "pipeline": 1, "dtype": "fp16", "loss_scale": 2.0**40, "horizon": 3},
    {"data": 2, "pipeline": 1, "data_style": "parameter-server"},
]


def named(plan):
    return " ".join(map(str, plan.values()))


def set_up(experiment, device, plan):
    """The context of rank 0 and its batches."""
    tiny = experiment(**{"layers": 2, "microbatches": 3} | plan)
    rank = Rank(tiny, lower(tiny), 0, device, Progress())
    batches = {
        batch: microbatch(tiny, batch[0], batch[1], device)
        for batch in {i.batch for i in rank.instructions if i.microbatch >= 0}
    }
    return RankContext(rank, EchoGroups()), batches


def outcome(executor, batches, steps=2):
    """Everything that steps leave behind: weights, losses, what was sent, the loss scale."""
    context = executor.context
    try:
        losses = []
        for _ in range(steps):
            executor.step(batches)
            losses += [float(loss) for _, loss in context.losses]
        weights = [p.shard.clone() for p in context.parameters.values()]
        gradients = [p.gradients.clone() for p in context.parameters.values()]
        scale = context.loss_scale.to_json()
        return [*weights, *gradients], (losses, context.groups.sent, scale)
    finally:
        executor.close()


def same(one, other):
    return one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


def adversary(seed):
    """Delays what streams do, now this one and now that one."""
    draw = random.Random(seed)
    return lambda stream: time.sleep(draw.choice([0.0, 0.0, 0.0, 0.001, 0.003]))


@pytest.mark.parametrize("plan", PLANS, ids=named)
def test_both_hosts_get_the_same_numbers(alone, experiment, plan):
    """Whatever streams do when, and to the last bit."""
    context, batches = set_up(experiment, alone, plan)
    expected = outcome(Executor(context), batches)
    assert any(values.isfinite().all() and values.any() for values in expected[0])
    context, batches = set_up(experiment, alone, plan)
    executor = AheadExecutor(context, [], HostStreams(adversary(len(str(plan)))))
    assert same(outcome(executor, batches), expected)
    held = {i: executor.end[i.index] for i in executor.instructions}
    free = {}
    for instruction in executor.instructions:
        stream = instruction.task.stream
        before = [held[other] for other in instruction.after]
        before.append(free.get(stream, 0.0))
        posted, end = executor.posted[instruction.index], executor.end[instruction.index]
        assert max(before) <= posted <= end
        free[stream] = end
    assert sum(change for _, _, change, _ in context.ledger.changes) == 0


def removable(instructions):
    """Waits for the maker of what is read, which nothing else makes sure of."""
    found = []
    for instruction in instructions:
        task = instruction.task
        for other in instruction.after:
            made = {tensor.name for tensor in other.task.allocates}
            others = [one for one in instruction.after if one is not other]
            implied = any(
                one.task.stream == other.task.stream and one.index > other.index for one in others
            )
            if made & {*task.sources, task.tensor} and not implied:
                found.append((instruction.index, other.index))
    return found


@pytest.mark.parametrize(
    "plan",
    [
        {"pipeline": 2, "schedule": "gpipe"},
        {"data": 2, "zero": 3, "pipeline": 1},
        {"tensor": 2, "pipeline": 1, "sequence_parallel": True},
        {"context": 2, "pipeline": 1},
    ],
    ids=named,
)
def test_a_wait_that_is_missing_shows(alone, experiment, plan):
    """Numbers are wrong or missing where a slow stream should have been waited for."""
    plan = plan | {"microbatches": 2}
    context, batches = set_up(experiment, alone, plan)
    expected = outcome(Executor(context), batches, steps=1)
    waits = removable(context.rank.instructions)
    assert waits
    for index, other in random.Random(0).sample(waits, min(len(waits), 4)):
        context, batches = set_up(experiment, alone, plan)
        instructions = context.rank.instructions
        slow = str(instructions[other].task.stream)
        executor = AheadExecutor(
            context, [], HostStreams(lambda name, slow=slow: time.sleep(0.02 * (name == slow)))
        )
        changed = executor.instructions[index]
        changed.after = tuple(one for one in changed.after if one.index != other)
        try:
            shows = not same(outcome(executor, batches, steps=1), expected)
        except ExecutionError as error:
            shows = "rank 0, " in str(error)
        assert shows, (changed.label, instructions[other].label)


class SlowEvent(Event):
    """Passes only when the host waits for it, or for one that was recorded later."""

    def __init__(self, streams):
        self.streams, self.number, self.passed = streams, -1, True

    def query(self):
        return self.passed

    def wait(self, timeout_s):
        if not self.passed:
            self.streams.log.append(("host waits", self.number))
        for event in self.streams.events:
            event.passed = event.passed or event.number <= self.number
        return True

    def seconds(self):
        return float(self.number)


class SlowStream(DeviceStream):
    """Does at once what it is given; what the device would do in its own time is noted."""

    def __init__(self, name, streams):
        self.name, self.streams = name, streams

    def wait(self, event):
        self.streams.log.append((self.name, "waits", event))

    def launch(self, work):
        work()

    def record(self, event):
        self.streams.count += 1
        event.number, event.passed = self.streams.count, False
        self.streams.log.append((self.name, "records", event))


class SlowStreams(DeviceStreams):
    """A device far behind: the host has launched everything long before it gets to it."""

    def __init__(self):
        self.log, self.events, self.count, self.made = [], [], 0, {}

    def stream(self, name):
        return self.made.setdefault(name, SlowStream(name, self))

    def event(self):
        self.events.append(SlowEvent(self))
        return self.events[-1]

    def restart(self):
        self.log.clear()

    def close(self):
        pass


@pytest.mark.parametrize("plan", PLANS, ids=named)
def test_a_device_that_is_far_behind_gets_everything_in_the_order_of_the_list(
    alone, experiment, plan
):
    context, batches = set_up(experiment, alone, plan)
    expected = outcome(Executor(context), batches)
    context, batches = set_up(experiment, alone, plan)
    device = SlowStreams()
    executor = AheadExecutor(context, [], device)
    assert same(outcome(executor, batches), expected)
    position = {id(entry[2]): n for n, entry in enumerate(device.log) if entry[1] == "records"}
    last = -1
    for instruction in executor.instructions:
        begin = position[id(executor.begin_events[instruction.index])]
        end = position[id(executor.end_events[instruction.index])]
        assert last < begin < end
        stream = str(instruction.task.stream)
        waited = [entry[2] for entry in device.log[:begin] if entry[:2] == (stream, "waits")]
        for other in instruction.after:
            assert executor.end_events[other.index] in waited
        last = end


def test_the_walk_stays_within_a_few_passes_of_the_device(alone, experiment):
    context, batches = set_up(experiment, alone, {"pipeline": 1, "microbatches": 8})
    device = SlowStreams()
    executor = AheadExecutor(context, [], device)
    ahead = most_ahead(executor.instructions)
    assert ahead == 4  # forward and backward of two microbatches
    executor.step(batches)
    under_way, longest = [], 0
    for entry in device.log:
        if entry[0] == "host waits":
            under_way = [number for number in under_way if number > entry[1]]
        elif entry[1] == "records" and entry[2] in executor.end_events:
            under_way.append(entry[2].number)
            longest = max(longest, len(under_way))
    assert longest == ahead


class Freeing(Observer):
    """Notes at every instruction how much memory waits to be given back."""

    def __init__(self):
        self.executor, self.most = None, 0

    def after(self, instruction, begin):
        self.most = max(self.most, len(self.executor._freed))


def test_memory_is_given_back_when_the_device_has_passed(alone, experiment):
    """Whole weights that are gathered again wait for those that were freed."""
    plan = {"data": 2, "zero": 3, "pipeline": 1, "bucket_mb": 0.001, "microbatches": 4}
    context, batches = set_up(experiment, alone, plan)
    observer, device = Freeing(), SlowStreams()
    observer.executor = executor = AheadExecutor(context, [observer], device)
    executor.step(batches)
    assert observer.most > 1  # nothing had passed
    assert len(executor._freed) == 0
    assert context.tensors == {}
    assert all(p.values.untyped_storage().nbytes() == 0 for p in context.parameters.values())


def test_what_hangs_is_named_by_the_first_event_that_has_not_passed(alone, experiment):
    context, batches = set_up(experiment, alone, {"pipeline": 2})
    rank = context.rank
    quick = rank.experiment.run.model_copy(update={"timeout_s": 0.6})
    rank = replace(rank, experiment=rank.experiment.model_copy(update={"run": quick}))
    context.groups.block.set()
    executor = AheadExecutor(RankContext(rank, context.groups), [], HostStreams())
    with pytest.raises(ExecutionError, match=r"^rank 0, 0RECV_B0: no answer within 0.6 s$"):
        executor.step(batches)
    context.groups.block.clear()
    executor.close()


def test_a_failure_on_a_stream_is_named_after_the_instruction_that_failed(alone, experiment):
    context, batches = set_up(experiment, alone, {"tensor": 2, "pipeline": 1})

    class Broken(Observer):
        def before(self, instruction):
            if instruction.task.stream != COMPUTE_STREAM:
                raise RuntimeError("[gloo/unbound_buffer.cc:78] Timed out waiting 1ms for recv")

    executor = AheadExecutor(context, [Broken()], HostStreams())
    with pytest.raises(ExecutionError, match=r"^rank 0, 0ALL_\S+: no answer within 60 s$"):
        executor.step(batches)
    executor.close()

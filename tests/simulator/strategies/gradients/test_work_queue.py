"""A work queue: what is written where, who does how much, in closed form, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ExperimentError, Program, load, lower, predict
from simulator.engine.engine import simulate
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.timeline.timeline import Timeline
from small_buckets import BLOCK, BLOCKS, SMALL
from table_costs import TableCosts

QUEUE = [*SMALL, "data_style=work-queue", "bucket_mb=100"]


class Speeds(TableCosts):
    """A microbatch takes a rank as long as the test says, and all else nothing."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__([])
        self.of_rank = seconds

    def seconds(self, instruction: Instruction) -> float:
        return self.of_rank[instruction.rank] if instruction.task.op is Op.BACKWARD else 0.0


def done(timeline: Timeline, program: Program) -> list[Counter[int]]:
    """How many microbatches each rank has done in each step."""
    idle = set(timeline.idle)
    counts = [Counter[int]() for _ in range(program.horizon)]
    for i in program:
        if i.task.op is Op.BACKWARD and i.uid not in idle:
            counts[i.step][i.rank] += 1
    return counts


def test_a_worker_asks_before_each_microbatch_and_once_more() -> None:
    """Written by hand: two microbatches in all, and two steps."""
    program = lower(load(None, [*QUEUE, "data=2", "microbatches=1", "horizon=2"]))
    labels = "0WORK0 0F0 0B0 0WORK1 0F1 0B1 0WORK 0REDUCE_GRAD 0BROADCAST"
    mine, _, server = ([i.label for i in rank] for rank in program.ranks)
    assert mine == [*labels.split(), *(f"s1:{label}" for label in labels.split())]
    accepts = [f"0ACCEPT{n}" for n in range(4)]
    assert server[:8] == [*accepts, *(f"s1:{label}" for label in accepts)]
    named = {i.label: i for i in program.ranks[0]}
    assert {o.label for o in named["s1:0WORK0"].after} == {"0WORK", "0B1", "0BROADCAST"}
    assert {o.label for o in named["0F1"].after} == {"0WORK1"}


@pytest.mark.parametrize(
    ("seconds", "shares"),
    [([1.0, 1.0], [6, 6]), ([1.0, 2.0], [8, 4]), ([1.0, 3.0], [9, 3]), ([1.0, 100.0], [11, 1])],
)
def test_shares_follow_speeds(seconds: list[float], shares: list[int]) -> None:
    program = lower(load(None, [*QUEUE, "data=2", "microbatches=6", "horizon=2"]))
    timeline = simulate(program, Speeds([*seconds, 0.0]))
    assert [[step[rank] for rank in (0, 1)] for step in done(timeline, program)] == [shares] * 2
    slowest = max(share * each for share, each in zip(shares, seconds, strict=True))
    assert timeline.iteration_time == 2 * slowest


@settings(max_examples=20, deadline=None)
@given(seconds=st.lists(st.floats(0.5, 5.0), min_size=2, max_size=4), count=st.integers(1, 4))
def test_everything_is_done_once_and_nobody_waits_longer_than_a_microbatch(
    seconds: list[float], count: int
) -> None:
    """Greedy handing out (Graham 1969): all end within the slowest one's microbatch."""
    workers = len(seconds)
    keys = [f"data={workers}", f"microbatches={count}", "horizon=2"]
    program = lower(load(None, [*QUEUE, *keys]))
    timeline = simulate(program, Speeds([*seconds, 0.0]))
    counts = done(timeline, program)
    assert [sum(step.values()) for step in counts] == [workers * count] * 2
    (queue,) = program.queues
    assert len(timeline.decisions) == len(queue.accepts)
    busy = [counts[0][rank] * seconds[rank] for rank in range(workers)]
    for rank, mine in enumerate(busy):
        assert mine <= min(busy) + seconds[rank] + 1e-9
    again = simulate(program, Speeds([1.0] * (workers + 1)), timeline.decisions)
    assert (again.decisions, again.idle) == (timeline.decisions, timeline.idle)
    assert (timeline.end[timeline.idle] == timeline.start[timeline.idle]).all()


def test_slow_ranks_of_a_cluster_do_less() -> None:
    keys = [*QUEUE, "data=2", "microbatches=6", "preset=dgx-a100-80gb", "slowdown={1 = 2}"]
    prediction = predict(load(None, keys))
    (counts,) = done(prediction.recorded, prediction.program)
    assert counts[0] == 2 * counts[1] == 8
    even = predict(load(None, [*keys, "data_style=parameter-server"])).iteration_time_s
    assert prediction.iteration_time_s < 0.8 * even


def test_memory_is_that_of_one_microbatch_at_a_time() -> None:
    """A worker's passes that have nothing to do hold nothing."""
    keys = [*QUEUE, "data=2", "preset=dgx-a100-80gb", "optimizer=adam"]
    peaks = [
        [rank.peak for rank in predict(load(None, [*keys, f"microbatches={n}"])).recorded.memory]
        for n in (1, 4)
    ]
    assert peaks[0] == peaks[1]
    alone = predict(load(None, [*keys, "data_style=parameter-server"])).recorded.memory
    assert peaks[0][0] == alone[0].peak
    assert peaks[0][2] >= 4 * BLOCK * BLOCKS


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["pipeline=2"], "parallel.pipeline = 2: with parallel.data_style = 'work-queue' each"),
        (["tensor=2"], "parallel.tensor = 2: with parallel.data_style = 'work-queue' each worker"),
        (["schedule=gpipe"], "ends a microbatch before it asks for another one; allowed: '1f1b'"),
        (["model=unit"], "workload.model = 'unit' has no parameters"),
        (["zero=1"], "servers have the optimizer's state; allowed: 0"),
        (["dtype=fp16"], "nobody tells trainers that gradients have overflowed"),
        (["servers=shared"], "a rank of its own hands out microbatches; allowed: a whole number"),
        (["servers=9"], "parallel.servers = 9: the gradients of this plan are in 1 bucket"),
        (["device=cuda", "backend=nccl"], "a server serves whoever comes, which NCCL cannot"),
    ],
)
def test_what_does_not_compose_is_refused(keys: list[str], message: str) -> None:
    base = ["model=mlp", "pipeline=1", "data=2", "data_style=work-queue", "microbatches=2"]
    with pytest.raises(ExperimentError) as error:
        lower(load(None, [*base, *keys]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pass_without_a_request_for_its_work_is_refused() -> None:
    def changed(change: Callable[[list[Instruction]], None]) -> str:
        lists = lower(load(None, [*QUEUE, "data=2", "microbatches=1"])).ranks
        change(lists[0])
        with pytest.raises(ProgramError) as error:
            check_program(Program(lists))
        return str(error.value)

    def does_not_wait(mine: list[Instruction]) -> None:
        passed = next(i for i in mine if i.label == "0F1")
        passed.after = ()

    def asks_once_less(mine: list[Instruction]) -> None:
        (asked,) = (i for i in mine if i.label == "0WORK")
        mine.remove(asked)
        for i in mine:
            i.after = tuple(other for other in i.after if other is not asked)

    message = "rank 0: 0F1 does not wait for a request for its microbatch in queue 'work'"
    assert message in changed(does_not_wait)
    assert "accepts 4 requests from queue 'work'" in changed(asks_once_less)

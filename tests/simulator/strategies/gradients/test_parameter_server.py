"""Servers: who gets which bucket, what is sent when, what is held, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, load, lower, predict
from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from small_buckets import BLOCK, BLOCKS, SMALL, small

SERVED = [*SMALL, "parallel.data_style=parameter-server"]
GPT = ["parallel.data_style=parameter-server", "parallel.pipeline=1"]


def with_servers(**parallel: object) -> Experiment:
    return small(data_style="parameter-server", **parallel)


def of(instructions: list[Instruction], op: Op) -> list[Instruction]:
    return [i for i in instructions if i.task.op is op]


def test_a_bucket_goes_to_its_server_and_comes_back_updated() -> None:
    """Written by hand, for two trainers and two servers."""
    program = lower(with_servers(data=2, servers=2, microbatches=1))
    for trainer in (0, 1):
        back = "0B0.3 0REDUCE_GRAD.3 0BROADCAST.3 0B0.2 0REDUCE_GRAD.2 0BROADCAST.2"
        back += " 0B0.1 0REDUCE_GRAD.1 0BROADCAST.1 0B0.0 0REDUCE_GRAD.0 0BROADCAST.0"
        labels = [i.label for i in program.ranks[trainer]]
        assert labels == ["0F0.0", "0F0.1", "0F0.2", "0F0.3", *back.split()]
    served = [" ".join(i.label for i in program.ranks[server]) for server in (2, 3)]
    pattern = "0REDUCE_GRAD.{0} 0REDUCE_GRAD.{1} 0STEP.{0} 0BROADCAST.{0} 0STEP.{1} 0BROADCAST.{1}"
    assert served == [pattern.format(2, 0), pattern.format(3, 1)]
    waits = {(False, Op.REDUCE): {Op.BACKWARD}, (False, Op.BROADCAST): {Op.BACKWARD, Op.REDUCE}}
    waits |= {(True, Op.REDUCE): set(), (True, Op.OPTIMIZER_STEP): {Op.REDUCE}}
    waits |= {(True, Op.BROADCAST): {Op.OPTIMIZER_STEP}}
    for instruction in program:
        task, serves = instruction.task, instruction.rank >= 2
        if (serves, task.op) in waits:
            assert {other.task.op for other in instruction.after} == waits[serves, task.op]
            assert {other.task.segment for other in instruction.after} <= {task.segment}
            assert task.nbytes == BLOCK
        if task.op in (Op.REDUCE, Op.BROADCAST):
            assert task.group == (0, 1, task.root)
            assert task.root in (2, 3)


@given(
    data=st.integers(1, 3),
    pipeline=st.integers(1, 2),
    tensor=st.integers(1, 2),
    servers=st.integers(1, 4),
    sequence_parallel=st.booleans(),
    microbatches=st.integers(1, 3),
)
def test_every_bucket_has_one_server_and_servers_have_equal_shares(
    data: int, pipeline: int, tensor: int, servers: int, sequence_parallel: bool, microbatches: int
) -> None:
    keys = {"data": data, "pipeline": pipeline, "tensor": tensor, "servers": servers}
    keys |= {"microbatches": microbatches, "bucket_mb": 0.5}
    if tensor > 1:
        keys["sequence_parallel"] = str(sequence_parallel).lower()
    plan = [*GPT, *(f"parallel.{key}={value}" for key, value in keys.items())]
    program = lower(load(None, plan))
    trainers = data * pipeline * tensor
    assert program.num_ranks == trainers + servers
    held = [sum(bucket.nbytes for bucket in mine) for mine in program.buckets]
    largest = max(bucket.nbytes for mine in program.buckets for bucket in mine)
    assert max(held[trainers:]) - min(held[trainers:]) <= largest
    for trainer in range(trainers):
        for bucket in program.buckets[trainer]:
            assert bucket.server is not None
            (same,) = [b for b in program.buckets[bucket.server] if b.name == bucket.name]
            assert (same.nbytes, same.segments) == (bucket.nbytes, bucket.segments)
            assert trainer in same.replicas
        for op in (Op.REDUCE, Op.BROADCAST):
            assert sum(i.task.nbytes for i in of(program.ranks[trainer], op)) == held[trainer]
    assert program.hash() == lower(load(None, plan)).hash()


def test_who_holds_what() -> None:
    """Trainers have no state of the optimizer; servers have no whole model."""
    plan = ["workload.dtype=bf16", "workload.optimizer=adam"]
    program = lower(load(None, [*SERVED, *plan, "parallel.data=2", "parallel.servers=2"]))
    whole, half = BLOCKS * BLOCK // 2, BLOCKS * BLOCK // 4  # of two bytes a parameter
    trainer = {"parameters": whole, "gradients": whole}
    server = {"parameters": half, "gradients": half, "optimizer": 6 * half}
    assert program.resident == [trainer | {"optimizer": 0}] * 2 + [server] * 2


class Given(Costs):
    """Seconds of each operation."""

    def __init__(self, seconds: dict[Op, float]) -> None:
        self.table = seconds
        self.capacities: dict[str, float] = {}

    def seconds(self, instruction: Instruction) -> float:
        return self.table[instruction.task.op]


@pytest.mark.parametrize("servers", [1, 2, 4])
@pytest.mark.parametrize(
    ("reduce", "step", "back"),
    [(0.5, 0.5, 0.5), (5.0, 1.0, 1.0), (0.5, 5.0, 0.5), (0.5, 0.5, 5.0), (3.0, 3.0, 3.0)],
)
def test_time_by_hand(servers: int, reduce: float, step: float, back: float) -> None:
    """Reduces take turns on a trainer, updates on a server, broadcasts on a trainer."""
    program = lower(with_servers(data=2, servers=servers, microbatches=1))
    table = {Op.FORWARD: 1.0, Op.BACKWARD: 2.0, Op.REDUCE: reduce}
    table |= {Op.OPTIMIZER_STEP: step, Op.BROADCAST: back}
    reduced, sent, updated = 0.0, 0.0, [0.0] * servers
    for number in range(BLOCKS):
        computed, server = BLOCKS + 2.0 * (number + 1), (BLOCKS - 1 - number) % servers
        reduced = max(reduced, computed) + reduce
        updated[server] = max(updated[server], reduced) + step
        sent = max(sent, updated[server]) + back
    assert simulate(program, Given(table)).iteration_time == pytest.approx(sent)


def test_the_next_step_begins_with_the_parameters_that_are_there() -> None:
    """A forward pass waits for the parameters of its own bucket, not for those of others."""
    keys = [*SERVED, "parallel.data=2", "parallel.microbatches=1", "run.horizon=2"]
    program = lower(load(None, keys))
    table = {Op.FORWARD: 1.0, Op.BACKWARD: 2.0, Op.REDUCE: 1.0}
    table |= {Op.OPTIMIZER_STEP: 4.0, Op.BROADCAST: 1.0}
    timeline = simulate(program, Given(table))
    first = [i for i in program.ranks[0] if i.step == 1 and i.task.op is Op.FORWARD]
    sent = [i for i in program.ranks[0] if i.step == 0 and i.task.op is Op.BROADCAST]
    for forward, broadcast in zip(first, reversed(sent), strict=True):
        assert broadcast in forward.after
    # Updates of 4 s follow each other from 7 s on; the first layers' come last.
    ends = {i.label: float(timeline.end[i.uid]) for i in sent}
    assert list(ends.values()) == [12.0, 16.0, 20.0, 24.0]
    assert float(timeline.start[first[0].uid]) == 24.0


def test_a_prediction_shows_trainers_and_servers() -> None:
    prediction = predict(with_servers(data=2, servers=1))
    assert [rank.role for rank in prediction.ranks] == ["trainer", "trainer", "server"]
    assert [rank.parameters for rank in prediction.ranks] == [BLOCKS * BLOCK // 4] * 3
    assert [stage.versions_behind for stage in prediction.staleness] == [[0] * 4]
    assert prediction.timeline.roles[1].ranks == range(2, 3)


def test_weights_are_as_fresh_as_with_all_reduces() -> None:
    for pipeline, horizon in ((1, 1), (2, 1), (2, 3)):
        plan = [*SERVED, f"parallel.pipeline={pipeline}", "parallel.data=2"]
        plan.append(f"run.horizon={horizon}")
        served, plain = (
            predict(load(None, [*plan, f"parallel.data_style={style}"])).staleness
            for style in ("parameter-server", "all-reduce")
        )
        assert served == plain != []


def test_mfu_counts_the_devices_of_servers() -> None:
    """They are in use, and could train."""
    plan = [*GPT, "cluster.preset=dgx-a100-80gb", "parallel.data=3"]
    prediction = predict(load(None, [*plan, "parallel.servers=1"]))
    assert prediction.mfu is not None
    whole = prediction.metrics.parameters
    assert whole > 0
    plain = predict(load(None, [*plan, "parallel.data_style=all-reduce"]))
    assert plain.mfu is not None
    times = plain.iteration_time_s / prediction.iteration_time_s
    assert prediction.mfu / plain.mfu == pytest.approx(times * 3 / 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["parallel.data_style=all-reduce", "parallel.servers=2"],
            "parallel.servers = 2: only for parallel.data_style = 'parameter-server', "
            "'work-queue', 'asynchronous', 'stale-synchronous' or 'soft-synchronous', not "
            "'all-reduce'",
        ),
        (["parallel.servers=0"], "parallel.servers = 0: allowed: 'shared', or 1 to 65536"),
        (
            ["parallel.data_style=ring"],
            "parallel.data_style = 'ring': allowed: 'all-reduce', 'parameter-server', "
            "'work-queue', 'asynchronous', 'stale-synchronous', 'soft-synchronous', "
            "'scatter-gather', 'local-sgd', 'diloco', 'gossip' or 'ad-psgd'",
        ),
        (
            ["parallel.servers=5"],
            "parallel.servers = 5: the gradients of this plan are in 4 buckets, each of one "
            "server; allowed: at most 4, or a parallel.bucket_mb below 0.1",
        ),
        (
            ["parallel.servers=2", "parallel.bucket_mb=1000", "parallel.pipeline=1"],
            "parallel.servers = 2: the gradients of this plan are in 1 bucket, each of one "
            "server; allowed: at most 1, or a parallel.bucket_mb below 1000",
        ),
        (
            ["parallel.zero=1", "parallel.data=2"],
            "parallel.zero = 1: with parallel.data_style = 'parameter-server' servers have the "
            "optimizer's state; allowed: 0",
        ),
        (
            ["workload.dtype=fp16"],
            "workload.dtype = 'fp16': with parallel.data_style = 'parameter-server' nobody tells "
            "trainers that gradients have overflowed; allowed: fp64, fp32, bf16",
        ),
        (
            ["parallel.schedule=pipedream", "parallel.pipeline=2"],
            "parallel.data_style = 'parameter-server': parallel.schedule = 'pipedream' updates "
            "within a step; allowed: synchronous schedules",
        ),
    ],
)
def test_refused_in_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        lower(load(None, [*SERVED, *settings]))
    assert str(error.value) == message


def test_a_model_without_parameters_has_no_server() -> None:
    with pytest.raises(ExperimentError, match=r"workload.model = 'unit' has no parameters"):
        load(None, ["workload.model=unit", "parallel.data_style=parameter-server"])

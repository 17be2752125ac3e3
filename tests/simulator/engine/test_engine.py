"""The engine on programs whose times are worked out by hand."""

from __future__ import annotations

import pytest

from simulator import Experiment, Program, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.contention import Demand
from simulator.engine.engine import simulate
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from table_costs import TableCosts, cores_of


def task(op: Op = Op.FORWARD, **more) -> Task:
    return Task(op, stage=0, **more)


SEND = task(Op.SEND, stream=Stream.send(1), peer=1, tensor=TensorName.other("x"), nbytes=8)
RECEIVE = task(Op.RECV, stream=Stream.recv(0), peer=0, tensor=TensorName.other("x"), nbytes=8)


def test_a_message_by_hand() -> None:
    """Rank 0: F 2 s, then sends. Rank 1: F 1 s beside a receive posted at once."""
    produce, consume, busy = (Instruction(task(), m) for m in range(3))
    send, receive = Instruction(SEND, 0, (produce,)), Instruction(RECEIVE, 0)
    consume.after = (receive,)
    program = Program([[produce, send], [receive, busy, consume]])
    timeline = simulate(program, TableCosts([2.0, 0.5, 0.5, 1.0, 4.0]))
    assert timeline.posted.tolist() == [0.0, 2.0, 0.0, 0.0, 2.5]
    assert timeline.start.tolist() == [0.0, 2.0, 2.0, 0.0, 2.5]
    assert timeline.end.tolist() == [2.0, 2.5, 2.5, 1.0, 6.5]
    assert timeline.iteration_time == 6.5


def test_a_sender_waits_for_its_receiver_and_its_stream_with_it() -> None:
    busy = Instruction(task())
    sends = [Instruction(SEND, m) for m in range(2)]
    receives = [Instruction(RECEIVE, 0, (busy,)), Instruction(RECEIVE, 1)]
    program = Program([sends, [busy, *receives]])
    timeline = simulate(program, TableCosts([0.25, 0.25, 3.0, 9.0, 9.0]))
    assert timeline.posted.tolist()[:2] == [0.0, 3.25]
    assert timeline.start.tolist() == [3.0, 3.25, 0.0, 3.0, 3.25]


def test_a_collective_starts_with_the_last_to_come() -> None:
    group = task(
        Op.ALL_REDUCE,
        stream=Stream.along("data"),
        group=(0, 1, 2),
        tensor=TensorName.other("g"),
        nbytes=8,
    )
    ranks = []
    for _ in range(3):
        first = Instruction(task())
        ranks.append([first, Instruction(group, -1, (first,))])
    timeline = simulate(Program(ranks), TableCosts([1.0, 0.5, 3.0, 0.0, 2.0, 0.0]))
    assert timeline.posted[1::2].tolist() == [1.0, 3.0, 2.0]
    assert timeline.start[1::2].tolist() == [3.0] * 3
    assert timeline.end[1::2].tolist() == [3.5] * 3  # the first member's seconds count


def test_delays_come_before_the_start_and_add_up() -> None:
    program = Program([[Instruction(task(), m) for m in range(3)]])
    timeline = simulate(program, TableCosts([1.0], delays=[0.5, 0.25, 0.0]))
    assert timeline.posted.tolist() == timeline.start.tolist() == [0.5, 1.75, 2.75]
    assert timeline.iteration_time == 3.75


class Waking(TableCosts):
    """Whose delays wait for a core, with a quarter of the weight of what computes there."""

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        return ((cores_of(0), 1e-6),), 0.25


@pytest.mark.parametrize(("cores", "posted"), [(4.0, 0.1), (3.0, 0.1), (2.0, 0.4), (1.0, 0.8)])
def test_who_wakes_up_waits_where_no_core_is_free(cores: float, posted: float) -> None:
    """Two ranks compute for a second, the third is about to; it takes nothing from them yet."""
    program = Program([[Instruction(task(), 0)] for _ in range(3)])
    timeline = simulate(program, Waking([1.0], [0.0, 0.0, 0.1], cores))
    assert timeline.posted == pytest.approx([0.0, 0.0, posted], rel=1e-5)
    left = 1.0 - posted * min(cores / 2, 1.0)  # of the first two, when all three compute
    shared = posted + left / min(cores / 3, 1.0)
    assert timeline.end[:2] == pytest.approx([shared] * 2, rel=1e-5)


def test_nothing_to_do() -> None:
    timeline = simulate(Program([[], []]), TableCosts([1.0]))
    assert (len(timeline), timeline.iteration_time) == (0, 0.0)


def gpipe(p: int, m: int) -> Experiment:
    return load(
        None,
        [
            "workload.model=unit",
            "parallel.schedule=gpipe",
            f"parallel.pipeline={p}",
            f"parallel.microbatches={m}",
        ],
    )


class ComputeOnly(TableCosts):
    """A second a pass on shared cores; messages are free."""

    def seconds(self, instruction: Instruction) -> float:
        return 0.0 if instruction.task.peer >= 0 else 1.0


@pytest.mark.parametrize("m", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cores", [1.0, 2.0, 3.0, 4.0])
def test_four_ranks_on_fewer_cores(m: int, cores: float) -> None:
    """GPipe's wave has 1, 2, …, min(m, 4), …, 2, 1 ranks at work; k ranks on c cores take
    max(1, k/c) of the time."""
    timeline = simulate(lower(gpipe(4, m)), ComputeOnly([], cores=cores))
    wave = [sum(0 <= step - rank < m for rank in range(4)) for step in range(m + 3)]
    expected = 2 * sum(max(1.0, working / cores) for working in wave)
    assert timeline.iteration_time == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("ranks", "cores"), [(2, 1.0), (4, 2.0), (4, 4.0), (6, 1.5)])
def test_replicas_share_cores_evenly(ranks: int, cores: float) -> None:
    program = lower(load(None, ["workload.model=unit", "parallel.pipeline=1",
                                f"parallel.data={ranks}", "parallel.microbatches=3"]))  # fmt: skip
    timeline = simulate(program, ComputeOnly([], cores=cores))
    assert timeline.iteration_time == pytest.approx(6 * ranks / cores, rel=1e-12)


def test_no_span_ends_before_it_starts() -> None:
    """A simpy clock adds differences: X + (T - X) < T. Rank 1 is ready to send at T, which is
    known when the clock is at X, the end of rank 0's pass on a shared core."""
    x, t = 0.05, 0.21
    assert x + (t - x) < t
    first, other = Instruction(task()), Instruction(task())
    receive = Instruction(RECEIVE, 0, (first,))
    send = Instruction(SEND, 0, (other,))

    class Shared(TableCosts):
        def demand(self, participants: tuple[Instruction, ...]) -> Demand:
            return () if participants == (other,) else ((cores_of(0), 1.0),)

    program = Program([[other, send], [first, receive]])
    timeline = simulate(program, Shared([t, 1e-30, x, 1e-30], cores=1.0))
    assert timeline.start.tolist() == [0.0, t, 0.0, t]
    assert (timeline.end >= timeline.start).all()


@pytest.mark.parametrize(("replicas", "nodes"), [(2, 1), (8, 1), (16, 2)])
def test_an_all_reduce_in_a_simulated_step(replicas: int, nodes: int) -> None:
    """Of 4·(2·64·256+320) bytes, at the cost of the whole group."""
    experiment = load(
        None,
        [
            *("workload.model=mlp", "workload.layers=1", "workload.hidden=64"),
            *("parallel.pipeline=1", f"parallel.data={replicas}", "parallel.microbatches=1"),
            "cluster.preset=dgx-a100-80gb",
        ],
    )
    cluster = resolve(experiment)
    assert cluster.nodes == nodes
    timeline = predict(experiment, cluster).timeline
    spans = timeline.of_kind(lambda kind: kind.op == Op.ALL_REDUCE)
    assert spans.sum() == replicas
    nbytes = 4 * (2 * 64 * 256 + 256 + 64)
    expected = cluster.collective(Op.ALL_REDUCE, tuple(range(replicas)), nbytes).mean_s
    assert timeline.end[spans] - timeline.start[spans] == pytest.approx(expected, rel=1e-6)

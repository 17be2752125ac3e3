"""The engine against its own definition, by hand and on random plans and costs.

Random times are multiples of 1/8, so that without contention every sum is exact.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, Program, load, lower, parse, predict
from simulator.cluster.resolve import resolve
from simulator.engine.contention import Demand
from simulator.engine.engine import Costs, simulate
from simulator.program.csv_text import to_csv
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.walk import predecessors
from simulator.strategies.schedules.registry import SCHEDULES
from simulator.timeline.timeline import Timeline
from simulator.timeline.trace import save_trace

SLACK = 1e-9


class Table(Costs):
    """Costs from lists that are read round and round, by instruction."""

    def __init__(
        self,
        seconds: list[float],
        delays: list[float] | None = None,
        cores: float | None = None,
        nodes: int = 1,
    ):
        self.table, self.delays, self.nodes = seconds, delays or [0.0], nodes
        self.capacities = {} if cores is None else {f"node{n}": cores for n in range(nodes)}

    def seconds(self, instruction: Instruction) -> float:
        return self.table[instruction.uid % len(self.table)]

    def delay(self, instruction: Instruction) -> float:
        return self.delays[instruction.uid % len(self.delays)]

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        amount = 1.0 if len(participants) == 1 else 0.5
        uses = [(f"node{member.rank % self.nodes}", amount) for member in participants]
        return tuple(uses) if self.capacities else ()


eighths = st.integers(0, 16).map(lambda n: n / 8)
tables = st.lists(eighths, min_size=1, max_size=40)


@st.composite
def programs(draw) -> Program:
    """Any small plan that lowers, of whatever schedules there are."""
    pipeline, virtual = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    data = {
        "workload": {
            "model": draw(st.sampled_from(["unit", "mlp", "gpt"])),
            "layers": draw(st.integers(2 * pipeline, 9)),
            "hidden": 8,
            "sequence": 4,
        },
        "parallel": {
            "pipeline": pipeline,
            "data": draw(st.integers(1, 3)),
            "microbatches": draw(st.integers(1, 5) | st.integers(1, 3).map(lambda n: n * pipeline)),
            "schedule": draw(st.sampled_from(sorted(SCHEDULES))),
            "bucket_mb": draw(st.sampled_from([0.001, 0.004, 0.01, 25])),
        },
    }
    for virtual_stages in (virtual, 3 - virtual):  # some schedules want one, some two
        data["parallel"]["virtual_stages"] = virtual_stages
        try:
            return lower(parse(data))
        except ExperimentError as refusal:  # of the plan, not of a program that went wrong
            assert not re.search(r"rank \d", str(refusal)), refusal
    return reject()


def check_semantics(program: Program, timeline: Timeline, costs: Table) -> None:
    """Every instruction starts as soon as `simulator.program` allows, and not before."""
    start, end, posted = (
        column.tolist() for column in (timeline.start, timeline.end, timeline.posted)
    )
    waits = predecessors(program)
    meeting = {member.uid: members for members in program.meetings for member in members}
    for instruction in program:
        uid = instruction.uid
        ready = max((end[other.uid] for other in waits[uid]), default=0.0)
        assert posted[uid] == ready + costs.delay(instruction)
        members = meeting.get(uid, (instruction,))
        assert start[uid] == max(posted[member.uid] for member in members)
        assert {end[member.uid] for member in members} == {end[uid]}
        seconds = costs.seconds(members[0])
        if costs.capacities:
            assert end[uid] >= start[uid]
            assert end[uid] - start[uid] >= seconds - SLACK
        else:
            assert end[uid] == start[uid] + seconds


def check_passes(program: Program, timeline: Timeline) -> None:
    """The data flow of training, whatever the schedule and its instructions say."""
    spans: dict[Op, dict[tuple[int, int, int], tuple[float, float]]] = {}
    replica_size = program.num_ranks // copies(program)
    for i in program:
        key = (i.rank // replica_size, i.task.stage, i.microbatch)
        op = Op.BACKWARD if i.task.op is Op.BACKWARD_INPUT else i.task.op
        begin, end = float(timeline.start[i.uid]), float(timeline.end[i.uid])
        table = spans.setdefault(op, {})
        earlier = table.get(key, (begin, end))  # another segment of the stage
        table[key] = (min(begin, earlier[0]), max(end, earlier[1]))
    forward, backward = spans[Op.FORWARD], spans[Op.BACKWARD]
    assert forward.keys() == backward.keys()
    for (copy, stage, microbatch), (begin, end) in forward.items():
        assert end <= backward[copy, stage, microbatch][0]
        if stage > 0:
            assert forward[copy, stage - 1, microbatch][1] <= begin
            ended = backward[copy, stage, microbatch][1]
            assert ended <= backward[copy, stage - 1, microbatch][0]
    for key, (begin, _) in spans.get(Op.BACKWARD_WEIGHT, {}).items():
        assert backward[key][1] <= begin


def copies(program: Program) -> int:
    """Replicas of the pipeline, each a run of consecutive ranks (in these plans)."""
    stages = {i.task.stage for i in program.ranks[0]}
    return sum({i.task.stage for i in rank} == stages for rank in program.ranks)


@given(programs(), tables, st.lists(eighths, max_size=7), st.sampled_from([None, 1.0, 2.0, 3.5]))
def test_any_plan_runs_as_defined(
    program: Program, seconds: list[float], delays: list[float], cores: float | None
) -> None:
    costs = Table(seconds, delays, cores, nodes=2)
    timeline = simulate(program, costs)
    check_semantics(program, timeline, costs)
    check_passes(program, timeline)
    for rank, instructions in enumerate(program.ranks):
        last: dict[str, float] = {}
        for instruction in instructions:  # a stream runs one span at a time, in list order
            stream, uid = instruction.task.stream, instruction.uid
            assert timeline.start[uid] >= last.get(stream, 0.0)
            last[stream] = float(timeline.end[uid])
        resident = sum(program.resident[rank].values())
        held = timeline.memory[rank].nbytes
        assert held[0] == held[-1] == resident
        if min(seconds) > 0:
            assert held.min() == resident


def random_order(p: int, m: int, split: bool, owner: list[int], random) -> str:
    """A schedule that some execution of the passes would have: any feasible one."""
    ends = ("I", "W") if split else ("B",)
    todo = {(op, s, b) for s in range(p) for b in range(m) for op in ("F", *ends)}
    done: set[tuple[str, int, int]] = set()

    def needs(op: str, s: int, b: int) -> set[tuple[str, int, int]]:
        if op == "F":
            return {("F", s - 1, b)} if s else set()
        if op == "W":
            return {("I", s, b)}
        return {("F", s, b)} | ({(ends[0], s + 1, b)} if s + 1 < p else set())

    rows: list[list[str]] = [[] for _ in range(p)]
    while todo:
        step = random.choice(sorted(step for step in todo if needs(*step) <= done))
        todo.remove(step)
        done.add(step)
        op, stage, microbatch = step
        rows[owner[stage]].append(f"{stage}{op}{microbatch}")
    return "".join(",".join(row) + "\n" for row in rows)


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.booleans(),
    st.permutations(range(4)),
    st.randoms(),
    tables,
    st.sampled_from([None, 1.5]),
)
def test_any_feasible_order_runs(
    tmp_path_factory, p, m, split, ranks, random, seconds, cores
) -> None:
    """Whatever the order of the passes and the places of the stages: no deadlock."""
    path = tmp_path_factory.getbasetemp() / "order.csv"
    owner = [rank for rank in ranks if rank < p]
    path.write_text(random_order(p, m, split, owner, random))
    plan = {"pipeline": p, "microbatches": m, "schedule": f"csv:{path}"}
    program = lower(parse({"workload": {"model": "unit"}, "parallel": plan}))
    assert to_csv(program, compute_only=True) == path.read_text()
    costs = Table(seconds, cores=cores)
    timeline = simulate(program, costs)
    check_semantics(program, timeline, costs)
    check_passes(program, timeline)


@given(programs(), tables, st.lists(st.integers(0, 8), min_size=1, max_size=9))
def test_slower_is_never_earlier(program: Program, seconds: list[float], more: list[int]) -> None:
    slower = [seconds[n % len(seconds)] + more[n % len(more)] / 8 for n in range(360)]
    same = [seconds[n % len(seconds)] for n in range(360)]
    fast, slow = (simulate(program, Table(table)) for table in (same, slower))
    assert (slow.end >= fast.end).all()
    assert (slow.start >= fast.start).all()


@given(programs(), tables, st.sampled_from([0.5, 1.0, 2.0]))
def test_sharing_slows_everything_and_wastes_nothing(
    program: Program, seconds: list[float], cores: float
) -> None:
    alone = simulate(program, Table(seconds))
    costs = Table(seconds, cores=cores)
    shared = simulate(program, costs)
    assert (shared.end >= alone.end - SLACK).all()
    work = sum(
        costs.seconds(members[0]) * sum(amount for _, amount in costs.demand(members))
        for members in [
            *program.meetings,
            *((i,) for i in program if i.task.peer < 0 and not i.task.group),
        ]
    )
    assert work <= cores * shared.iteration_time + SLACK
    plenty = simulate(program, Table(seconds, cores=1000.0))
    assert abs(plenty.end - alone.end).max() <= SLACK


@given(programs(), tables, st.sampled_from([None, 1.5]))
def test_two_runs_are_byte_equal(tmp_path_factory, program: Program, seconds, cores) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("first", "second"):
        save_trace(simulate(program, Table(seconds, cores=cores)), folder / name)
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()


def task(op: Op = Op.FORWARD, **more) -> Task:
    return Task(op, stage=0, **more)


SEND = task(Op.SEND, stream="send:1", peer=1, tensor="x", nbytes=8)
RECEIVE = task(Op.RECV, stream="recv:0", peer=0, tensor="x", nbytes=8)


def test_a_message_by_hand() -> None:
    """Rank 0: F 2 s, then sends. Rank 1: F 1 s beside a receive posted at once."""
    produce, consume, busy = (Instruction(task(), m) for m in range(3))
    send, receive = Instruction(SEND, 0, (produce,)), Instruction(RECEIVE, 0)
    consume.after = (receive,)
    program = Program([[produce, send], [receive, busy, consume]])
    timeline = simulate(program, Table([2.0, 0.5, 0.5, 1.0, 4.0]))
    assert timeline.posted.tolist() == [0.0, 2.0, 0.0, 0.0, 2.5]
    assert timeline.start.tolist() == [0.0, 2.0, 2.0, 0.0, 2.5]
    assert timeline.end.tolist() == [2.0, 2.5, 2.5, 1.0, 6.5]
    assert timeline.iteration_time == 6.5


def test_a_sender_waits_for_its_receiver_and_its_stream_with_it() -> None:
    busy = Instruction(task())
    sends = [Instruction(SEND, m) for m in range(2)]
    receives = [Instruction(RECEIVE, 0, (busy,)), Instruction(RECEIVE, 1)]
    program = Program([sends, [busy, *receives]])
    timeline = simulate(program, Table([0.25, 0.25, 3.0, 9.0, 9.0]))
    assert timeline.posted.tolist()[:2] == [0.0, 3.25]
    assert timeline.start.tolist() == [3.0, 3.25, 0.0, 3.0, 3.25]


def test_a_collective_starts_with_the_last_to_come() -> None:
    group = task(Op.ALL_REDUCE, stream="data", group=(0, 1, 2), tensor="g", nbytes=8)
    ranks = []
    for _ in range(3):
        first = Instruction(task())
        ranks.append([first, Instruction(group, -1, (first,))])
    timeline = simulate(Program(ranks), Table([1.0, 0.5, 3.0, 0.0, 2.0, 0.0]))
    assert timeline.posted[1::2].tolist() == [1.0, 3.0, 2.0]
    assert timeline.start[1::2].tolist() == [3.0] * 3
    assert timeline.end[1::2].tolist() == [3.5] * 3  # the first member's seconds count


def test_delays_come_before_the_start_and_add_up() -> None:
    program = Program([[Instruction(task(), m) for m in range(3)]])
    timeline = simulate(program, Table([1.0], delays=[0.5, 0.25, 0.0]))
    assert timeline.posted.tolist() == timeline.start.tolist() == [0.5, 1.75, 2.75]
    assert timeline.iteration_time == 3.75


class Waking(Table):
    """Whose delays wait for a core, with a quarter of the weight of what computes there."""

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        return (("node0", 1e-6),), 0.25


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
    timeline = simulate(Program([[], []]), Table([1.0]))
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


class ComputeOnly(Table):
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

    class Shared(Table):
        def demand(self, participants: tuple[Instruction, ...]) -> Demand:
            return () if participants == (other,) else (("node0", 1.0),)

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
    spans = timeline.of_kind(lambda kind: kind.op == "ALL_REDUCE")
    assert spans.sum() == replicas
    nbytes = 4 * (2 * 64 * 256 + 256 + 64)
    expected = cluster.collective("ALL_REDUCE", tuple(range(replicas)), nbytes).mean_s
    assert timeline.end[spans] - timeline.start[spans] == pytest.approx(expected, rel=1e-6)

"""The engine against its definition, on random plans and costs.

Random times are multiples of 1/8, so that without contention every sum is exact.
"""

from __future__ import annotations

import re

from hypothesis import given, reject
from hypothesis import strategies as st

from simulator import ExperimentError, Program, lower, parse
from simulator.engine.engine import simulate
from simulator.program.csv_text import to_csv
from simulator.program.operations import Op
from simulator.program.walk import predecessors
from simulator.strategies.schedules.registry import SCHEDULES
from simulator.timeline.timeline import Timeline
from simulator.timeline.trace import save_trace
from table_costs import TableCosts

SLACK = 1e-9


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


def check_semantics(program: Program, timeline: Timeline, costs: TableCosts) -> None:
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
    costs = TableCosts(seconds, delays, cores, nodes=2)
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
    costs = TableCosts(seconds, cores=cores)
    timeline = simulate(program, costs)
    check_semantics(program, timeline, costs)
    check_passes(program, timeline)


@given(programs(), tables, st.lists(st.integers(0, 8), min_size=1, max_size=9))
def test_slower_is_never_earlier(program: Program, seconds: list[float], more: list[int]) -> None:
    slower = [seconds[n % len(seconds)] + more[n % len(more)] / 8 for n in range(360)]
    same = [seconds[n % len(seconds)] for n in range(360)]
    fast, slow = (simulate(program, TableCosts(table)) for table in (same, slower))
    assert (slow.end >= fast.end).all()
    assert (slow.start >= fast.start).all()


@given(programs(), tables, st.sampled_from([0.5, 1.0, 2.0]))
def test_sharing_slows_everything_and_wastes_nothing(
    program: Program, seconds: list[float], cores: float
) -> None:
    alone = simulate(program, TableCosts(seconds))
    costs = TableCosts(seconds, cores=cores)
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
    plenty = simulate(program, TableCosts(seconds, cores=1000.0))
    assert abs(plenty.end - alone.end).max() <= SLACK


@given(programs(), tables, st.sampled_from([None, 1.5]))
def test_two_runs_are_byte_equal(tmp_path_factory, program: Program, seconds, cores) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("first", "second"):
        save_trace(simulate(program, TableCosts(seconds, cores=cores)), folder / name)
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()

"""Accepted programs end, whoever is fast, and everybody is served when the policy says so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parameter_server import server_program
from simulator import load
from simulator.engine.engine import simulate
from simulator.engine.rank_speeds import RankSpeeds
from simulator.program.arrival import (
    BoundedStaleness,
    FirstCome,
    FirstN,
    Policy,
    RandomOrder,
    SoftSync,
)
from simulator.program.arrival_staleness import arrival_staleness
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timeline.timeline import Timeline
from table_costs import TableCosts

seconds = st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.5]) | st.floats(0, 3)
policies = st.one_of(
    st.builds(FirstCome),
    st.builds(RandomOrder, st.integers(0, 5)),
    st.builds(BoundedStaleness, st.integers(0, 3)),
    st.builds(SoftSync, st.integers(1, 5)),
    st.builds(FirstN, st.integers(1, 4)),
)
steps = st.lists(st.integers(1, 4), min_size=1, max_size=4)
tables = st.lists(seconds, min_size=1, max_size=23)
cores = st.sampled_from([None, 1.0, 2.0])


def accepted(policy: Policy, counts: Sequence[int]) -> Program | None:
    """The program, None where it is refused."""
    program = server_program(policy, counts)
    try:
        check_program(program)
    except ProgramError:
        return None
    return program


@given(policies, steps, tables, cores)
def test_an_accepted_program_ends(policy, counts, table, cores) -> None:
    program = accepted(policy, counts)
    if program is None:
        assert isinstance(policy, BoundedStaleness | SoftSync | FirstN)
        return
    timeline = simulate(program, TableCosts(table, cores=cores))
    assert len(timeline.decisions) == 2 * sum(counts)
    (queue,) = program.queues
    assert tuple(decision.accept for decision in timeline.decisions) == queue.accepts
    assert sorted(d.request for d in timeline.decisions) == sorted(queue.by_uid)
    for accept, request in timeline.decisions:
        assert timeline.start[accept] == timeline.start[request]
        assert timeline.end[accept] == timeline.end[request]
        assert timeline.start[accept] == max(timeline.posted[accept], timeline.posted[request])
    assert (timeline.end[timeline.idle] == timeline.start[timeline.idle]).all()
    again = simulate(program, TableCosts(table, cores=cores), timeline.decisions)
    for column in ("posted", "start", "end"):
        assert getattr(again, column).tolist() == getattr(timeline, column).tolist()
    assert (again.decisions, again.idle) == (timeline.decisions, timeline.idle)


def waiting(program: Program, timeline: Timeline) -> list[list[tuple[float, int, int]]]:
    """Return, per decision, who has come and is not served: (when, rank, uid), ascending."""
    (queue,) = program.queues
    served: set[int] = set()
    found = []
    for accept, request in timeline.decisions:
        there = [
            (float(timeline.posted[uid]), rank, uid)
            for rank, uids in queue.requests.items()
            for uid in [next((uid for uid in uids if uid not in served), -1)]
            if uid >= 0 and timeline.posted[uid] <= timeline.start[accept]
        ]
        found.append(sorted(there))
        served.add(request)
    return found


@given(steps, tables, cores)
def test_first_come_serves_who_came_first_and_lower_ranks_before_higher(
    counts, table, cores
) -> None:
    program = server_program(FirstCome(), counts)
    timeline = simulate(program, TableCosts(table, cores=cores))
    for decision, there in zip(timeline.decisions, waiting(program, timeline), strict=True):
        assert decision.request == there[0][2]


@given(st.integers(0, 3), st.integers(2, 4), st.integers(1, 4), tables, cores)
def test_no_worker_gets_further_ahead_than_its_bound(bound, workers, count, table, cores) -> None:
    program = server_program(BoundedStaleness(bound), [count] * workers)
    check_program(program)
    timeline = simulate(program, TableCosts(table, cores=cores))
    (queue,) = program.queues
    clocks = dict.fromkeys(queue.requests, 0)
    for decision in timeline.decisions:
        request = queue.by_uid[decision.request]
        clocks[request.rank] += request.is_push
        assert max(clocks.values()) - min(clocks.values()) <= bound + 1


def passes_take(program: Program, seconds: Sequence[Sequence[float]]) -> Timeline:
    """Simulate where pass k of worker i takes `seconds[i][k]` (round and round), the rest none."""
    table = [0.0] * len(program)
    for i in program:
        if i.task.op is Op.FORWARD:
            mine = seconds[i.rank - 1]
            table[i.uid] = mine[i.microbatch % len(mine)]
    return simulate(program, TableCosts(table))


@given(st.integers(0, 3), st.lists(st.lists(seconds, min_size=5, max_size=5), min_size=1))
def test_a_bound_starts_steps_when_the_recursion_says(bound, table) -> None:
    """start_p(c) = max(end_p(c - 1), max_q end_q(c - bound - 1)) where messages take nothing."""
    program = server_program(BoundedStaleness(bound), [5] * len(table))
    timeline = passes_take(program, table)
    starts = [
        timeline.start[[i.uid for i in listed[1::3]]].tolist() for listed in program.ranks[1:]
    ]
    ends: list[list[float]] = [[] for _ in table]
    for clock in range(5):
        far = max(end[clock - bound - 1] for end in ends) if clock > bound else 0.0
        for worker, end in enumerate(ends):
            start = max(far, end[-1] if end else 0.0)
            assert starts[worker][clock] == start
            end.append(start + table[worker][clock])


def test_staleness_is_that_of_the_rates() -> None:
    """Behind Λ/λ - 1 updates on average, a worker of rate λ of Λ; n - 1, all together."""
    periods = (2.0, 3.0, 6.0)  # all are alike again after six seconds
    program = server_program(FirstCome(), [int(60 / period) for period in periods])
    timeline = passes_take(program, [[period] for period in periods])
    rows = arrival_staleness(program, timeline.decisions)
    settled = [row.versions_behind[int(6 / p) :] for row, p in zip(rows, periods, strict=True)]
    total = sum(1 / period for period in periods)
    for behind, period in zip(settled, periods, strict=True):
        assert sum(behind) / len(behind) == pytest.approx(total * period - 1, rel=1e-12)
    assert sum(map(sum, settled)) / sum(map(len, settled)) == len(periods) - 1


@pytest.mark.parametrize("backups", [0, 1, 2])
def test_backup_workers_wait_for_an_order_statistic(backups: int) -> None:
    """c + (H_n - H_b)/λ is the mean of the (n - b)-th of n shifted exponential times."""
    workers, spread, draws = 5, 0.5, 200
    keys = ["pipeline=1", f"data={workers}", f"horizon={draws}", "jitter=shifted-exponential"]
    speeds = RankSpeeds(load(None, [*keys, f"jitter_spread={spread}"]))
    program = server_program(FirstN(workers - backups), [1] * workers)
    updates = []
    for draw in range(draws):
        timeline = passes_take(program, [[speeds.of_rank(w)[draw]] for w in range(workers)])
        due = [step for step in program.queues[0].steps if step not in timeline.idle]
        updates.append(timeline.end[due[0]])
    left = range(backups + 1, workers + 1)
    expected = 1 - spread + spread * sum(1 / k for k in left)
    deviation = spread * sum(1 / k**2 for k in left) ** 0.5
    assert abs(sum(updates) / draws - expected) < 3 * deviation / draws**0.5


@given(steps, tables)
def test_one_gradient_an_update_is_asynchronous(counts, table) -> None:
    one, plain = (server_program(each, counts) for each in (SoftSync(1), FirstCome()))
    first, second = (simulate(program, TableCosts(table)) for program in (one, plain))
    assert (first.decisions, first.idle) == (second.decisions, second.idle)
    assert first.end.tolist() == second.end.tolist()


@pytest.mark.parametrize("policy", [FirstN, SoftSync])
@given(st.integers(1, 4), st.integers(1, 3), tables)
def test_with_all_workers_an_update_all_make_the_same_step(policy, workers, count, table) -> None:
    program = server_program(policy(workers), [count] * workers)
    timeline = simulate(program, TableCosts(table))
    due = [step for step in program.queues[0].steps if step not in timeline.idle]
    assert len(due) == count


def test_a_server_by_hand() -> None:
    """Two workers, 1 and 2 seconds a pass; messages take 0.5 seconds and an update 0.25."""
    program = server_program(FirstCome(), [1, 1])
    table = [9.0, 0.25] * 4 + [0.5, 1.0, 0.5] + [0.5, 2.0, 0.5]
    timeline = simulate(program, TableCosts(table))
    accepts = list(program.queues[0].accepts)
    assert timeline.start[accepts].tolist() == [0.0, 0.5, 1.5, 3.0]
    assert timeline.end[accepts].tolist() == [0.5, 1.0, 2.0, 3.5]
    assert [repr(program.instruction(d.request)) for d in timeline.decisions] == [
        "rank 1: 0PULL0", "rank 2: 0PULL0", "rank 1: 0PUSH0", "rank 2: 0PUSH0",
    ]  # fmt: skip
    assert timeline.idle == [1, 3]
    assert timeline.iteration_time == 3.75


@pytest.mark.parametrize("bound", [0, 1])
def test_what_cannot_be_served_never_starts(bound: int) -> None:
    program = server_program(BoundedStaleness(bound), [5, 2])
    with pytest.raises(ValueError, match="deadlock: rank 0: 0ACCEPT"):
        simulate(program, TableCosts([1.0]))

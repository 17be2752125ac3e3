"""Staleness counts the updates between a worker's pull and the update with its gradient."""

from __future__ import annotations

from parameter_server import server_program
from simulator.engine.engine import simulate
from simulator.program.arrival import FirstCome, FirstN, Policy, SoftSync
from simulator.program.arrival_staleness import arrival_staleness
from simulator.program.program import Program
from simulator.program.staleness import StageStaleness
from table_costs import TableCosts


def staleness(policy: Policy, steps: list[int], seconds: list[float]) -> list[StageStaleness]:
    """Simulate where pass i of the program takes `seconds[i]` in turn, and messages nothing."""
    program = server_program(policy, steps)
    table = [0.0] * len(program)
    passes = [i.uid for i in program if i.label.startswith("0F")]
    for number, uid in enumerate(passes):
        table[uid] = seconds[number % len(seconds)]
    timeline = simulate(program, TableCosts(table))
    return arrival_staleness(program, timeline.decisions)


def test_equal_workers_are_behind_by_all_the_others() -> None:
    """Each of n workers finds n - 1 updates of the others, once the first step is over."""
    for workers in (1, 2, 5):
        found = staleness(FirstCome(), [4] * workers, [1.0])
        assert [row.worker for row in found] == list(range(1, workers + 1))
        for number, row in enumerate(found):
            assert row.versions_behind == [number, *[workers - 1] * 3]
        assert found[-1].mean_versions_behind == workers - 1


def test_a_slow_worker_is_far_behind() -> None:
    """Worker 1 makes three steps while worker 2 makes its first."""
    fast, slow = staleness(FirstCome(), [3, 1], [1.0, 1.0, 1.0, 3.5])
    assert fast.versions_behind == [0, 0, 0]
    assert (slow.versions_behind, slow.max_versions_behind) == ([3], 3)


def test_synchronous_updates_are_never_stale_and_late_gradients_count_as_none() -> None:
    for row in staleness(FirstN(3), [3] * 3, [1.0, 2.0, 0.5]):
        assert row.versions_behind == [0, 0, 0]
    first, second, late = staleness(FirstN(2), [1, 1, 1], [1.0, 1.0, 2.0])
    assert first.versions_behind == second.versions_behind == [0]
    assert (late.versions_behind, late.mean_versions_behind) == ([None], 0.0)
    assert late.to_json() == {
        "stage": 0,
        "worker": 3,
        "server": 0,
        "versions_behind": [None],
        "max_versions_behind": 0,
        "mean_versions_behind": 0.0,
        "histogram": [0],
    }
    assert StageStaleness.from_json(late.to_json()) == late


def test_soft_synchronous_staleness_is_between_none_and_that_of_asynchronous_workers() -> None:
    """With c of 4 equal workers an update, each is behind by the 4/c - 1 updates of others."""
    for count in (1, 2, 4):
        rows = staleness(SoftSync(count), [8] * 4, [1.0])
        assert [row.versions_behind[-1] for row in rows] == [4 // count - 1] * 4


def test_programs_without_queues_have_no_such_staleness() -> None:
    assert arrival_staleness(Program([[]]), []) == []

"""Asynchronous workers: their lists, what is refused, and times and staleness by hand."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.analysis.comparison import compare_timelines
from simulator.engine.engine import simulate
from simulator.experiment.section import ExperimentError
from simulator.program.arrival import RandomOrder
from simulator.program.operations import Op
from simulator.program.program import Program
from table_costs import TableCosts

ASKED = ["parallel.data_style=asynchronous", "parallel.pipeline=1", "workload.layers=2"]

SOFT, STALE = (f"parallel.data_style={name}-synchronous" for name in ("soft", "stale"))


def program(*more: str) -> Program:
    return lower(load(None, [*ASKED, *more]))


def test_workers_pull_compute_and_push_and_the_server_accepts() -> None:
    lists = program("parallel.data=2", "parallel.microbatches=2", "run.horizon=2").ranks
    worker = [
        "0PULL", "0F0", "0B0", "0F1", "0B1", "0PUSH",
        "s1:0PULL", "s1:0F0", "s1:0B0", "s1:0F1", "s1:0B1", "s1:0PUSH",
    ]  # fmt: skip
    assert [[i.label for i in listed] for listed in lists[:2]] == [worker] * 2
    served = [f"0{name}{n}" for n in range(4) for name in ("ACCEPT", "STEP")]
    assert [i.label for i in lists[2]] == served + [f"s1:{label}" for label in served]
    pull, push = lists[1][0].task, lists[1][5].task
    assert (pull.op, push.op, pull.peer, push.peer) == (Op.RECV, Op.SEND, 2, 2)
    assert (str(pull.tensor), str(push.tensor)) == ("parameters:0", "gradients:0")
    assert pull.nbytes == push.nbytes == lists[2][0].task.nbytes > 0
    assert lists[2][0].task.group == (0, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["parallel.pipeline=2"],
            "parallel.pipeline = 2: with parallel.data_style = 'asynchronous' each worker has the "
            "whole model; allowed: 1",
        ),
        (
            ["parallel.tensor=2"],
            "parallel.tensor = 2: with parallel.data_style = 'asynchronous' each worker has the "
            "whole model; allowed: 1",
        ),
        (
            [SOFT, "parallel.servers=2", "parallel.backup_workers=1"],
            "parallel.servers = 2: with parallel.data_style = 'soft-synchronous' workers that wait "
            "at one server for others could be waited for at the next, for ever; allowed: 1",
        ),
        (
            ["parallel.zero=1"],
            "parallel.zero = 1: with parallel.data_style = 'asynchronous' servers have the "
            "optimizer's state; allowed: 0",
        ),
        (
            ["workload.clip_norm=1"],
            "workload.clip_norm = 1: with parallel.data_style = 'asynchronous' no rank has the "
            "norm of the whole gradient; allowed: unset",
        ),
        (
            ["workload.dtype=fp16"],
            "workload.dtype = 'fp16': with parallel.data_style = 'asynchronous' nobody tells "
            "trainers that gradients have overflowed; allowed: fp64, fp32, bf16",
        ),
        (
            ["run.device=cuda"],
            "run.backend = 'auto': with parallel.data_style = 'asynchronous' a server receives "
            "from whoever comes, which NCCL cannot; allowed on GPUs: 'gloo'",
        ),
    ],
)
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        load(None, [*ASKED, "parallel.data=2", *keys])
    assert str(error.value) == message


SEVERAL = ["parallel.data=2", "parallel.bucket_mb=1", "run.horizon=2"]


def test_all_buckets_of_a_server_travel_together() -> None:
    one, whole = program(*SEVERAL), program(*SEVERAL, "parallel.bucket_mb=1000")
    assert len(one.ranks[0]) > len(whole.ranks[0])  # passes are cut where buckets end
    assert [len(held) for held in one.buckets] == [1, 1, 1]
    assert one.buckets[2][0].nbytes == whole.buckets[2][0].nbytes
    messages = [[i.label for i in p.ranks[0] if i.task.queue] for p in (one, whole)]
    assert messages[0] == messages[1] == ["0PULL", "0PUSH", "s1:0PULL", "s1:0PUSH"]


def test_buckets_are_divided_among_servers_by_bytes() -> None:
    several = program(*SEVERAL, "parallel.servers=2")
    (first,), (second,) = several.buckets[2:]
    segments = sorted([*first.segments, *second.segments])
    assert segments == sorted({i.task.layers for i in several.ranks[0] if i.task.op is Op.FORWARD})
    whole = program(*SEVERAL, "parallel.bucket_mb=1000").buckets[2][0].nbytes
    assert first.nbytes + second.nbytes == whole
    assert max(first.nbytes, second.nbytes) < 0.7 * whole
    assert several.buckets[0] == [first, second]
    assert [queue.server for queue in several.queues] == [2, 3]
    assert [len(queue.accepts) for queue in several.queues] == [8, 8]


def test_a_worker_pulls_from_all_servers_and_pushes_to_each_as_soon_as_it_can() -> None:
    several = program(*SEVERAL, "parallel.servers=2", "parallel.microbatches=1")
    listed = several.ranks[1]
    labels = [i.label for i in listed]
    assert labels[:2] == ["0PULL.0", "0PULL.1"]
    for number, (bucket,) in enumerate(several.buckets[2:]):
        pull, push = (listed[labels.index(f"0{name}.{number}")] for name in ("PULL", "PUSH"))
        of_bucket = [
            i
            for i in listed
            if not i.step and i.task.layers in bucket.segments and not i.task.queue
        ]
        assert pull in of_bucket[0].after
        assert push.after == (of_bucket[-1],)
        assert listed[push.index - 1] is of_bucket[-1]
    assert labels.index("0PUSH.0") != labels.index("0PUSH.1")


def test_servers_decide_at_random_of_different_seeds() -> None:
    keys = [*SEVERAL, "parallel.servers=2", "parallel.policy=random-order"]
    seeds = [
        queue.policy.seed
        for seed in (7, 8)  # of neither run, though they follow each other
        for queue in program(*keys, f"run.seed={seed}").queues
        if isinstance(queue.policy, RandomOrder)
    ]
    assert len(set(seeds)) == 4
    assert seeds[0] == 7


def test_staleness_is_counted_for_each_worker_at_each_server() -> None:
    prediction = predict(load(None, [*ASKED, *SEVERAL, "parallel.servers=2"]))
    rows = [(row.worker, row.server) for row in prediction.staleness]
    assert rows == [(0, 2), (1, 2), (0, 3), (1, 3)]
    for server in (2, 3):  # n - 1 = 1 on average, but for who is first
        behind = [row.versions_behind for row in prediction.staleness if row.server == server]
        assert sum(map(sum, behind)) <= 1 * 4
        assert all(len(pushes) == 2 for pushes in behind)


def test_workers_do_not_get_further_ahead_than_a_bound_at_any_server() -> None:
    keys = [STALE, "parallel.staleness_bound=1", "run.horizon=6"]
    several = program(*SEVERAL, "parallel.servers=2", *keys)
    table = [4.0 if i.rank == 0 and not i.task.queue else 0.25 for i in several]
    timeline = simulate(several, TableCosts(table))
    for queue in several.queues:
        pushed = [0, 0]
        for decision in timeline.decisions:
            request = queue.by_uid.get(decision.request)
            if request is not None and request.is_push:
                pushed[request.rank] += 1
                assert max(pushed) - min(pushed) <= 2
        assert pushed == [6, 6]


def test_memory_of_the_server_has_a_buffer_for_what_is_pushed() -> None:
    prediction = predict(load(None, [*ASKED, "parallel.data=2"]))
    nbytes = prediction.program.buckets[2][0].nbytes
    assert prediction.ranks[2].peak_memory_bytes == 3 * nbytes  # parameters, gradients, pushed
    assert prediction.ranks[2].role == "server"
    assert [row.worker for row in prediction.staleness] == [0, 1]


def test_on_gpus_every_worker_is_simulated_and_the_server_is_who_they_wait_for() -> None:
    """Requests of 16 workers queue: more workers an iteration bring more updates a second, but
    not twice as many, since one server serves one at a time."""
    more = ["cluster.preset=dgx-h100", "run.horizon=3"]
    eight, sixteen = (
        predict(load(None, [*ASKED, f"parallel.data={count}", *more])) for count in (8, 16)
    )
    assert (eight.program.num_ranks, sixteen.program.num_ranks) == (9, 17)
    assert eight.iteration_time_s < sixteen.iteration_time_s < 2 * eight.iteration_time_s
    queue, timeline = sixteen.program.queues[0], sixteen.recorded
    accepts = list(queue.accepts)
    assert (timeline.end[accepts][:-1] <= timeline.start[accepts][1:]).all()


def test_an_accept_is_compared_with_the_one_that_served_the_same_request() -> None:
    """Two workers that come in another order: nothing differs but who was first."""
    two = program("parallel.data=2")
    passes = [i.uid for i in two if i.task.op in (Op.FORWARD, Op.BACKWARD)]
    tables = []
    for slow in (0, 1):
        table = [0.0] * len(two)
        for uid in passes:
            table[uid] = 2.0 if two.instruction(uid).rank == slow else 1.0
        for uid in two.queues[0].pushes:
            table[uid] = 0.25 if two.instruction(uid).rank == 0 else 0.5
        tables.append(table)
    first, second = (simulate(two, TableCosts(table)) for table in tables)
    assert [d.request for d in first.decisions] != [d.request for d in second.decisions]
    rows = {name: (mine, theirs) for name, _, mine, theirs in compare_timelines(first, second).rows}
    assert rows["ACCEPT"][0] == rows["ACCEPT"][1]
    moved = compare_timelines(first, first).instruction_start_error
    assert moved == 0.0 < compare_timelines(first, second).instruction_start_error


def test_idle_steps_are_not_compared() -> None:
    two = program("parallel.data=2")
    timeline = simulate(two, TableCosts([1.0]))
    counts = {name: count for name, count, _, _ in compare_timelines(timeline, timeline).rows}
    assert (counts["ACCEPT"], counts["STEP"]) == (4, 2)

"""Averaging in pairs: who asks whom, what is served when, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ExperimentError, Program, load, lower, predict
from simulator.engine.engine import simulate
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.strategies.gradients.ad_psgd import active_replicas, partner_of
from small_buckets import BLOCK, BLOCKS, SMALL
from table_costs import TableCosts

PAIRS = [*SMALL, "data_style=ad-psgd", "microbatches=1", "bucket_mb=100"]
RING = [*PAIRS, "data=4", "topology=ring"]


def test_active_replicas_ask_and_passive_ones_answer() -> None:
    """Written by hand: of two replicas the first one asks, in both of two steps."""
    program = lower(load(None, [*PAIRS, "data=2", "topology=ring", "horizon=2"]))
    active, passive = program.ranks
    labels = "0F0 0B0 0PUSH 0PULL 0STEP s1:0F0 s1:0B0 s1:0PUSH s1:0PULL s1:0STEP"
    assert [i.label for i in active] == labels.split()
    labels = "0SNAPSHOT 0F0 0B0 0STEP s1:0SNAPSHOT s1:0F0 s1:0B0 s1:0STEP s1:0LAST"
    assert [i.label for i in passive if i.task.op is not Op.ACCEPT] == labels.split()
    assert sum(i.task.op is Op.ACCEPT for i in passive) == 8
    named = {i.label: i for i in (*active, *passive)}
    assert {o.label for o in named["0PULL"].after} >= {"0PUSH"}
    assert named["0PUSH"].task.nbytes == BLOCK * BLOCKS


def test_halves_are_those_of_the_graph_and_partners_are_drawn_by_the_seed() -> None:
    experiment = load(None, [*PAIRS, "data=8", "topology=ring", "horizon=40"])
    assert active_replicas(experiment) == {0, 2, 4, 6}
    chosen = [partner_of(2, step, experiment) for step in range(40)]
    assert set(chosen) == {1, 3}
    assert 8 < chosen.count(1) < 32
    other = load(None, [*PAIRS, "data=8", "topology=ring", "horizon=40", "seed=1"])
    assert chosen != [partner_of(2, step, other) for step in range(40)]
    torus = load(None, [*PAIRS, "data=16", "topology=torus"])
    assert active_replicas(torus) == {0, 2, 5, 7, 8, 10, 13, 15}


@settings(max_examples=15, deadline=None)
@given(
    seconds=st.lists(st.floats(0.1, 5.0), min_size=3, max_size=9),
    number=st.sampled_from([2, 4, 6]),
)
def test_what_changes_parameters_is_served_one_by_one(seconds: list[float], number: int) -> None:
    """A pull follows its push, and nothing overlaps, whatever anything takes."""
    keys = [*PAIRS, f"data={number}", "topology=ring", "horizon=3"]
    program = lower(load(None, keys))
    timeline = simulate(program, TableCosts(seconds))
    for queue in program.queues:
        served = [d.request for d in timeline.decisions if d.request in queue.by_uid]
        assert len(served) == len(queue.accepts)
        for before, after in pairwise(served):
            assert timeline.end[before] <= timeline.start[after] + 1e-9
            if queue.by_uid[before].is_push:
                one, other = program.instruction(before), program.instruction(after)
                assert (one.rank, one.step, other.task.op) == (other.rank, other.step, Op.RECV)
    again = simulate(program, TableCosts([1.0]), timeline.decisions)
    assert again.decisions == timeline.decisions or sorted(again.decisions) == sorted(
        timeline.decisions
    )


def test_a_slow_replica_holds_up_nobody_but_those_who_ask_it() -> None:
    """Its neighbours wait for its queue, not for its passes; synchronous gossip waits for these."""
    keys = ["preset=dgx-a100-80gb", "horizon=16", "data=8", "slowdown={1 = 4}", "topology=ring"]
    prediction = predict(load(None, [*PAIRS, *keys]))
    ends = [row.last_end_s for row in prediction.ranks]
    assert max(ends[0], *ends[2:]) < 0.6 * ends[1]
    mixed = predict(load(None, [*PAIRS, *keys, "data_style=gossip"]))
    assert min(row.last_end_s for row in mixed.ranks) > 0.8 * ends[1]


def test_a_passive_replica_holds_what_is_averaged_besides_what_passes_use() -> None:
    program = lower(load(None, [*RING, "optimizer=momentum"]))
    whole = BLOCK * BLOCKS
    held = [resident["optimizer"] for resident in program.resident]
    assert held == [whole, 2 * whole] * 2


def test_local_requests_are_of_the_rank_that_accepts() -> None:
    def refused(change: Callable[[list[Instruction]], None]) -> str:
        lists = lower(load(None, [*PAIRS, "data=2", "topology=ring"])).ranks
        change(lists[1])
        with pytest.raises(ProgramError) as error:
            check_program(Program(lists))
        return str(error.value)

    def of_another_rank(mine: list[Instruction]) -> None:
        update = next(i for i in mine if i.task.op is Op.OPTIMIZER_STEP)
        update.task = replace(update.task, peer=0)

    def one_accept_less(mine: list[Instruction]) -> None:
        (last,) = (i for i in mine if i.label == "0LAST")
        gone = last.after[0]
        last.after = ()
        mine.remove(gone)

    assert "is for rank 0; allowed: rank 1" in refused(of_another_rank)
    assert "rank 1 accepts 3 requests from queue 'pair 1'" in refused(one_accept_less)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["topology=ring", "data=3"], "'ring': neighbours of 3 replicas form odd circles"),
        (["topology=complete"], "'complete': neighbours of 4 replicas form odd circles"),
        ([], "parallel.data_style = 'ad-psgd': needs parallel.topology, which is not set"),
        (["topology=ring", "data=1"], "there is one replica, and nothing to exchange"),
        (["topology=ring", "tensor=2"], "each replica is one rank; allowed: 1"),
        (["topology=ring", "dtype=bf16"], "allowed: fp64, fp32"),
        (["topology=ring", "zero=1"], "replicas share what is equal"),
        (["topology=ring", "push_sum=true"], "push_sum = true: only for parallel.data_style"),
        (["topology=ring", "device=cuda", "backend=nccl"], "whoever comes, which NCCL cannot"),
        (["data_style=all-reduce", "topology=ring"], "'gossip' or 'ad-psgd', not 'all-reduce'"),
    ],
)
def test_what_does_not_compose_is_refused(keys: list[str], message: str) -> None:
    base = ["model=mlp", "pipeline=1", "data=4", "data_style=ad-psgd", "horizon=2"]
    with pytest.raises(ExperimentError) as error:
        load(None, [*base, *keys])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_says_who_is_whose_neighbour(tmp_path: Path) -> None:
    """A star: its centre is one half."""
    rows = ["0,0.25,0.25,0.5", "0.25,0.75,0,0", "0.25,0,0.75,0", "0.5,0,0,0.5"]
    (tmp_path / "star.csv").write_text("\n".join(rows))
    keys = [*PAIRS, "data=4", f"topology=csv:{tmp_path}/star.csv", "horizon=40"]
    experiment = load(None, keys)
    assert active_replicas(experiment) == {0}
    chosen = [partner_of(0, step, experiment) for step in range(40)]
    assert chosen.count(3) > chosen.count(1)

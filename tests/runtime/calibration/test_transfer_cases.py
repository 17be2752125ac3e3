"""The small programs of calibration have the transfers that a plan sends, in its groups."""

from __future__ import annotations

import pytest

from runtime.calibration.transfer_cases import PASSES, SIZES, SMALLEST, TransferCases
from simulator.experiment_file import load
from simulator.program.deadlock import check_deadlock
from simulator.program.operations import Op
from simulator.strategies.lowering import lower

PLAN = ["parallel.data=2", "parallel.bucket_mb=0.5"]


def cases_of(wide: bool, *settings: str) -> TransferCases:
    experiment = load(None, [*PLAN, *settings])
    return TransferCases(experiment, lower(experiment), wide=wide, cores=2)


@pytest.fixture(scope="module")
def cases() -> TransferCases:
    return cases_of(True)


def test_no_more_ranks_than_cores_tell_of_the_host(cases):
    """Four would wait for two cores, which a prediction has them do anyway."""
    for case in cases.hosts:
        assert [len(instructions) > 0 for instructions in case.program.ranks] == [1, 1, 0, 0]
        assert {i.task.group for i in case.program} <= {(), (0, 1)}


@pytest.mark.parametrize("wide", [False, True])
def test_every_transfer_of_the_program_has_a_case(wide):
    cases = cases_of(wide)
    program = lower(load(None, PLAN))
    sent = {(i.task.op, i.task.nbytes) for i in program if i.task.op in (Op.SEND, Op.ALL_REDUCE)}
    measured = {(case.op, case.nbytes) for case in cases.transfers}
    smallest = {(op, SMALLEST) for op, _ in sent}
    assert sent | smallest <= measured
    assert wide == ((Op.ALL_REDUCE, SIZES[-1]) in measured)
    assert wide or measured == sent | smallest


def test_a_case_of_servers_has_the_root_of_the_program():
    cases = cases_of(False, "parallel.data_style=parameter-server", "parallel.servers=2")
    rooted = [case for case in cases.transfers if case.op in (Op.REDUCE, Op.BROADCAST)]
    assert {case.op for case in rooted} == {Op.REDUCE, Op.BROADCAST}
    for case in rooted:
        check_deadlock(case.program)
        (task,) = {i.task for i in case.program if i.task.op is case.op}
        assert task.root == task.group[-1] >= 4
        assert (case.size, task.allocates) == (3, ())


def test_transfers_on_a_host_and_between_hosts_are_different_cases():
    """Replicas are on two hosts, each with the two stages of one."""
    experiment = load(None, PLAN)
    cases = TransferCases(experiment, lower(experiment), True, 2, hosts=["a", "a", "b", "b"])
    pairs = {(case.op, case.remote): set() for case in cases.transfers}
    for case in cases.transfers:
        check_deadlock(case.program)
        active = [rank for rank, listed in enumerate(case.program.ranks) if listed]
        pairs[case.op, case.remote].add(tuple(active))
    assert pairs == {
        (Op.SEND, False): {(0, 1)},
        (Op.SEND, True): {(0, 2)},
        (Op.ALL_REDUCE, True): {(0, 2), (1, 3), (0, 1, 2, 3)},
    }
    assert cases.at_once == (0, 1)


def test_gpus_are_measured_with_larger_messages():
    experiment = load(None, ["run.device=cuda"])
    cases = TransferCases(experiment, lower(experiment), True, 2)
    assert max(case.nbytes for case in cases.transfers) == 16 * SIZES[-1]


def test_one_rank_a_host_has_no_messages_on_a_host():
    experiment = load(None, [])
    cases = TransferCases(experiment, lower(experiment), False, 2, hosts=["a", "b"])
    assert {case.remote for case in cases.transfers} == {True}
    assert cases.at_once == (0,)


def test_cases_do_not_deadlock(cases):
    for case in cases.transfers:
        check_deadlock(case.program)
        assert len(case.program.ranks) == 4


def test_one_rank_measures_the_host_alone():
    alone = cases_of(True, "parallel.data=1", "parallel.pipeline=1", "parallel.microbatches=1")
    assert alone.transfers == []
    assert [len(case.program.ranks) for case in alone.hosts] == [1, 1]
    host, queueing = alone.hosts
    assert (len(host.program.ranks[0]), len(queueing.program.ranks[0])) == (PASSES, 2 * PASSES)


def test_sums_of_16_bits_are_measured_as_such():
    cases = cases_of(False, "parallel.compression=fp16", "parallel.pipeline=1")
    found = {(case.op, case.dtype) for case in cases.transfers if case.nbytes > SMALLEST}
    assert found == {(Op.ALL_REDUCE, "fp16")}
    for case in cases.transfers:
        values = {i.task.nbytes % 4 for i in case.program if i.task.dtype}
        assert values <= {0} and (case.op is Op.SEND or case.dtype)

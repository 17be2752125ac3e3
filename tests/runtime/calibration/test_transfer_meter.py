"""What calibration reads off its small programs is what they were simulated with."""

from __future__ import annotations

import pytest

from runtime.calibration import transfer_meter as transfers
from runtime.calibration.transfer_cases import Runs, TransferCase, TransferCases
from runtime.calibration.transfer_meter import PASS_S, TransferMeter
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.measurement.clock import Clock
from runtime.progress import Progress
from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.experiment_file import load
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.strategies.lowering import lower

ISSUE_S, QUEUE_S, WAKE_S = 2e-5, 7e-5, 3e-4
PLAN = ["parallel.data=2", "parallel.bucket_mb=0.5"]


class Known(Costs):
    """A transfer takes a millisecond per MB and one more."""

    def __init__(self, queues: bool):
        self.capacities, self.queues = {}, queues

    def seconds(self, instruction):
        task = instruction.task
        return PASS_S if task.stream == COMPUTE_STREAM else 1e-3 + task.nbytes * 1e-9

    def delay(self, instruction):
        if instruction.after:
            return WAKE_S
        if instruction.task.stream != COMPUTE_STREAM:
            return 0.0
        return ISSUE_S + (QUEUE_S if self.queues else 0.0)


@pytest.fixture(scope="module")
def cases() -> TransferCases:
    experiment = load(None, PLAN)
    return TransferCases(experiment, lower(experiment), wide=True, cores=2)


def columns(case: TransferCase, queues: bool = False):
    timeline = simulate(case.program, Known(queues))
    return tuple(column[None, :] for column in (timeline.posted, timeline.start, timeline.end))


def test_host_time_is_between_passes(cases):
    host, queueing = cases.hosts
    assert transfers._between_passes(host, columns(host)) == pytest.approx([ISSUE_S] * 29)
    both = transfers._between_passes(queueing, columns(queueing, queues=True))
    assert both == pytest.approx([ISSUE_S + QUEUE_S] * 29)


def test_a_transfer_wakes_a_pass_and_a_pass_a_transfer(cases):
    for case in cases.transfers:
        if case.size > 1:
            assert transfers._wake_seconds(case, *columns(case)) == pytest.approx(WAKE_S)


def test_transfers_last_from_the_last_arrival_to_the_end(cases):
    assert {case.op for case in cases.transfers} == {Op.SEND, Op.ALL_REDUCE}
    for case in cases.transfers:
        timing = transfers._timing(case, *columns(case))
        (nbytes,) = {i.task.nbytes for i in case.program if i.task.op is case.op}
        assert case.nbytes <= nbytes < case.nbytes + 4 * case.size  # parts are equal
        assert timing.mean_s == pytest.approx(1e-3 + nbytes * 1e-9)
        assert timing.p10_s == pytest.approx(timing.p90_s)


def test_meetings_of_hosts_are_no_part_of_what_a_transfer_takes():
    """Ranks meet for 0.2 s before they launch; to wake a stream ends when it is posted."""
    send = Instruction(Task(Op.SEND, 0, stream=Stream.send(1), peer=1, nbytes=8), 0)
    receive = Instruction(Task(Op.RECV, 0, stream=Stream.recv(0), peer=0, nbytes=8), 0)
    last = Instruction(Task(Op.OPTIMIZER_STEP, 0), 0, [receive])
    program = Program([[send], [receive, last]])
    ranks = [
        Runs([[1.0]], [[1.3]], [[1.35]]),
        Runs([[1.1, 1.5]], [[1.3, 1.5]], [[1.4, 1.6]]),
    ]
    columns = transfers._columns(program, ranks)
    case = TransferCase("one message", program, Op.SEND, 2, 8)
    assert transfers._timing(case, *columns).mean_s == pytest.approx(0.1)
    assert transfers._wake_seconds(case, *columns) == pytest.approx(0.1)


def test_ranks_compute_between_transfers(alone, experiment):
    """Not beside products, which never pause."""
    tiny = experiment(microbatches=2)
    rank = Rank(tiny, lower(tiny), 0, alone, Progress())
    meter = TransferMeter(rank, Clock(), wide=False, beside=False, cores=1)
    meter.begin(Groups(meter.programs, 60.0), lambda share, what: None)
    meter.close()
    for case in meter.hosts:
        passes = [n for n, i in enumerate(case.program.ranks[0]) if i.task.op is Op.OPTIMIZER_STEP]
        for posted, end in zip(case.alone.posted, case.alone.end, strict=True):
            assert all(end[n] - posted[n] >= 1e-3 for n in passes)
    found = meter.found()
    assert found.issue_s > 0 <= found.queue_s

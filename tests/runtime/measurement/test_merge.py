"""Measured timelines obey the program; paced ones also keep the modelled times."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parameter_server import server_program
from runtime.measurement.merge import (
    Measurement,
    RankRecord,
    aligned,
    from_json,
    merge,
    to_json,
)
from simulator.prediction import predict
from simulator.program.accept_queue import Decision
from simulator.program.arrival import FirstCome
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import (
    TensorKind,
    TensorName,
    activation,
    deferred_tensor,
    gradient,
    saved_tensor,
    stashed,
)
from simulator.program.walk import predecessors
from simulator.timeline.statistics import over_iterations
from simulator.timeline.timeline import MemoryParts, Timeline

RUNS = [
    {"schedule": "gpipe", "pipeline": 2, "microbatches": 4},
    {"schedule": "1f1b", "pipeline": 4, "microbatches": 6},
    {"schedule": "naive", "pipeline": 2, "microbatches": 2},
    {"data": 3, "microbatches": 2, "bucket_mb": 1e-6},
    {"data": 2, "pipeline": 2, "schedule": "1f1b", "microbatches": 2, "bucket_mb": 1e-6},
    {"schedule": "pipedream", "pipeline": 2, "microbatches": 4},
    {"schedule": "interleaved-1f1b", "pipeline": 2, "virtual_stages": 2, "microbatches": 4},
    {"schedule": "zb-h1", "model": "mlp", "layers": 9, "pipeline": 4, "microbatches": 8},
    {"schedule": "zb-v", "pipeline": 2, "virtual_stages": 2, "microbatches": 4},
]
UNIT = {
    "model": "unit",
    "forward": 0.04,
    "backward_input": 0.04,
    "backward_weight": 0.04,
}
PACED = [
    UNIT | {"schedule": "1f1b", "pipeline": 2, "microbatches": 3},
    UNIT | {"schedule": "gpipe", "pipeline": 2, "microbatches": 2, "p2p": 0.04},
    UNIT | {"schedule": "1f1b", "pipeline": 4, "microbatches": 4},
    UNIT | {"schedule": "1f1b", "pipeline": 2, "data": 2, "microbatches": 2, "p2p": 0.04},
]


HELD = MemoryParts(parameters=3, gradients=2)
"""What is resident."""


def name_of(keys):
    return ",".join(f"{key}={value}" for key, value in keys.items() if key not in UNIT)


@pytest.mark.parametrize("keys", RUNS + PACED, ids=name_of)
def test_every_instruction_has_a_span_in_its_order(run, keys):
    ran = run(**keys)
    timeline, program = ran.measurement.timeline, ran.program
    assert len(timeline) == len(program)
    assert timeline.labels() == [i.label for i in program]
    assert timeline.rank.tolist() == [i.rank for i in program]
    assert np.all(timeline.posted >= 0)
    assert np.all(timeline.posted <= timeline.start)
    assert np.all(timeline.start <= timeline.end)
    waits = predecessors(program)  # of its stream, and what it names in `after`
    late = [
        (i, other)
        for i in program
        for other in waits[i.uid]
        if timeline.end[other.uid] > timeline.posted[i.uid]
    ]
    assert late == []
    assert timeline.iteration_time == timeline.end.max() > 0


@pytest.mark.parametrize("keys", RUNS + PACED, ids=name_of)
def test_communication_starts_when_all_have_posted(run, keys):
    ran = run(**keys)
    timeline, program = ran.measurement.timeline, ran.program
    meetings = program.meetings
    for meeting in meetings:
        members = [member.uid for member in meeting]
        starts = set(timeline.start[members].tolist())
        assert len(starts) == 1
        assert starts.pop() >= timeline.posted[members].max()
        tasks = [member.task for member in meeting]
        if tasks[0].op is Op.SEND:
            assert [task.op for task in tasks] == [Op.SEND, Op.RECV]
            assert (tasks[0].peer, tasks[1].peer) == (meeting[1].rank, meeting[0].rank)
        else:
            assert tuple(member.rank for member in meeting) == tasks[0].group
    communication = {i.uid for i in program if i.task.op in ("SEND", "RECV", "ALL_REDUCE")}
    assert communication == {member.uid for meeting in meetings for member in meeting}
    alone = [i.uid for i in program if i.uid not in communication]
    assert np.array_equal(timeline.start[alone], timeline.posted[alone])


@pytest.mark.parametrize("keys", RUNS, ids=name_of)
def test_memory_changes_while_its_rank_has_instructions(run, keys):
    timeline = run(**keys).measurement.timeline
    for row, held in enumerate(timeline.memory):
        mine = timeline.rank == row
        assert np.all(np.diff(held.times) >= 0)
        assert timeline.posted[mine].min() <= held.times[1]
        assert held.times[-1] <= timeline.end[mine].max()


@pytest.mark.parametrize("keys", RUNS, ids=name_of)
def test_nothing_arrives_before_it_was_sent(run, keys):
    """Clocks of ranks agree: a receive or all-reduce that ended before the last participant
    had come would have been given length 0 by `merge`."""
    ran = run(**keys, iterations=1)
    timeline = ran.measurement.timeline
    arriving = timeline.of_kind(lambda kind: kind.op in ("RECV", "ALL_REDUCE"))
    assert arriving.any()
    assert np.all(timeline.end[arriving] > timeline.start[arriving])


@pytest.mark.parametrize("keys", PACED, ids=name_of)
def test_paced_instructions_end_when_the_model_says_or_later(run, keys):
    ran = run(**keys)
    predicted, measured = predict(ran.experiment).timeline, ran.measurement.timeline
    assert np.all(measured.end >= predicted.end - 1e-9)
    assert measured.iteration_time >= predicted.iteration_time - 1e-9


@pytest.mark.parametrize("keys", PACED, ids=name_of)
def test_paced_instructions_start_in_the_predicted_order(run, keys):
    """Over all ranks and streams, wherever the prediction leaves four full passes between."""
    ran = run(**keys)
    predicted, measured = predict(ran.experiment).timeline, ran.measurement.timeline
    before = predicted.start[:, None] + 4 * UNIT["forward"] - 1e-9 <= predicted.start[None, :]
    assert before.any()
    swapped = before & (measured.start[:, None] >= measured.start[None, :])
    assert [(ran.program, *pair) for pair in np.argwhere(swapped).tolist()] == []


def test_each_iteration_has_a_time_and_a_loss(run):
    measured = run(schedule="gpipe", pipeline=2, microbatches=4, iterations=3, warmup=1)
    measurement = measured.measurement
    assert len(measurement.iteration_times) == len(measurement.losses) == 3
    statistics = over_iterations(measurement.iteration_times)
    low, high = statistics.iteration_time_p10_s, statistics.iteration_time_p90_s
    middle = statistics.iteration_time_s
    assert min(measurement.iteration_times) <= low <= middle <= high
    assert high <= max(measurement.iteration_times)
    assert middle == sorted(measurement.iteration_times)[1]
    assert measurement.noise_floor == pytest.approx((high - low) / (2 * middle))


# Without processes: what `merge` makes of recorded times ------------------------------


def two_ranks():
    """Rank 0 computes and sends, rank 1 receives and computes."""
    forward = [Task(op=Op.FORWARD, stage=stage) for stage in range(2)]
    send = Task(Op.SEND, 0, stream=Stream.send(1), peer=1, tensor=activation(1), nbytes=8)
    receive = Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, tensor=activation(1), nbytes=8)
    first = Instruction(forward[0], 0)
    got = Instruction(receive, 0)
    return Program(
        [[first, Instruction(send, 0, [first])], [got, Instruction(forward[1], 0, [got])]]
    )


def test_merge_waits_for_the_last_participant_and_takes_medians():
    program = two_ranks()
    records = [
        # posted and end per iteration; the send is buffered: over before its receiver came
        RankRecord(
            [[0.0, 1.0], [0.0, 2.0], [0.0, 1.5]], [[1.0, 1.1], [2.0, 2.1], [1.5, 1.6]], [[]], HELD
        ),
        RankRecord(
            [[3.0, 4.0], [0.5, 2.5], [0.0, 2.0]], [[3.5, 5.0], [2.4, 3.0], [1.9, 9.0]], [[]], HELD
        ),
    ]
    timeline, times = merge(program, records)
    assert times == [5.0, 3.0, 9.0]
    assert timeline.posted.tolist() == [0.0, 1.5, 0.5, 2.5]
    assert timeline.start.tolist() == [0.0, 1.5, 2.0, 2.5]
    assert timeline.end.tolist() == [1.5, 1.6, 2.4, 5.0]


def test_a_stream_is_free_when_an_early_send_has_ended():
    """Two messages leave before their receiver has come, as NCCL's do from its buffers."""
    send = Task(Op.SEND, 0, stream=Stream.send(1), peer=1, tensor=activation(1), nbytes=8)
    receive = Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, tensor=activation(1), nbytes=8)
    program = Program([[Instruction(t, m) for m in (0, 1)] for t in (send, receive)])
    records = [
        RankRecord([[0.0, 1.1]], [[1.0, 5.5]], [[]], HELD),
        RankRecord([[5.0, 5.2]], [[5.1, 6.0]], [[]], HELD),
    ]
    posted, start, end = aligned(program, records)
    assert start.tolist() == [[0.0, 5.2, 5.0, 5.2]]
    assert end.tolist() == [[1.0, 5.5, 5.1, 6.0]]
    assert posted[0, 1] >= end[0, 0]


@pytest.mark.parametrize(
    ("op", "spans"),
    [
        (Op.SHIFT, [(0.0, 1.0), (0.5, 2.0), (5.0, 6.0)]),  # needs its neighbours only
        (Op.BROADCAST, [(0.0, 1.0), (0.5, 2.0), (5.0, 6.0)]),
        (Op.REDUCE, [(5.0, 5.0), (0.5, 2.0), (5.0, 6.0)]),  # its root is rank 0
        (Op.ALL_REDUCE, [(5.0, 5.0), (5.0, 5.0), (5.0, 6.0)]),  # clocks that differ
    ],
)
def test_only_what_needs_everybody_waits_for_the_last(op, spans):
    task = Task(op, 0, stream=Stream.along("data"), group=(0, 1, 2), root=0, nbytes=8)
    program = Program([[Instruction(task, 0)] for _ in range(3)])
    times = [(0.0, 1.0), (0.5, 2.0), (5.0, 6.0)]
    records = [RankRecord([[begin]], [[end]], [[]], HELD) for begin, end in times]
    _, start, end = aligned(program, records)
    assert list(zip(start[0].tolist(), end[0].tolist(), strict=True)) == spans


def test_merge_adds_up_memory_from_what_is_resident():
    changes = [
        (0.4, 8, activation(1)),
        (1.1, -8, activation(1)),
        (0.1, 2, gradient(2)),
        (0.4, -2, gradient(2)),
    ]
    records = [
        RankRecord([[0.0, 1.0]], [[1.0, 1.1]], [changes], HELD),
        RankRecord([[0.0, 1.0]], [[1.0, 1.1]], [[]], MemoryParts(optimizer=7)),
    ]
    first, second = merge(two_ranks(), records)[0].memory
    assert first.times.tolist() == [0.0, 0.1, 0.4, 0.4, 1.1]
    assert first.nbytes.tolist() == [5, 7, 5, 13, 5]
    assert (first.peak, second.nbytes.tolist()) == (13, [7])


def test_merge_says_what_the_first_peak_consists_of():
    changes = [
        (0.1, 10, activation(1)),
        (0.2, 20, saved_tensor(0)),
        (0.3, 40, stashed(0, 1)),
        (0.4, 80, TensorName(TensorKind.WHOLE_PARAMETERS, 0)),
        (0.5, 5, TensorName(TensorKind.GRADIENTS, 0)),
        (0.6, -10, activation(1)),
        (0.7, 10, deferred_tensor(0)),  # as much as before, of other things
        (0.8, -145, "everything"),
    ]
    record = RankRecord([[0.0, 1.0]], [[1.0, 1.1]], [changes], HELD)
    first, _ = merge(two_ranks(), [record, record])[0].memory
    assert first.peak == 160
    assert first.peak_parts == MemoryParts(3 + 40, 2, 0, 10 + 20, 80 + 5)


def test_the_memory_is_that_of_the_step_with_the_median_peak():
    kinds = [(9, TensorName.other("x")), (1, stashed(0, 1)), (4, activation(1))]
    steps = [[(0.1, held, name), (0.2, -held, name)] for held, name in kinds]
    record = RankRecord([[0.0, 1.0]] * 3, [[1.0, 1.1]] * 3, steps, HELD)
    first, _ = merge(two_ranks(), [record, record])[0].memory
    assert first.nbytes.tolist() == [5, 9, 5]
    assert first.peak_parts == MemoryParts(3, 2, activations=4)


@pytest.mark.parametrize("keys", RUNS, ids=name_of)
def test_the_parts_of_a_peak_add_up_to_it(run, keys):
    ran = run(**keys)
    for rank, held in enumerate(ran.measurement.timeline.memory):
        parts, resident = held.peak_parts, ran.program.resident[rank]
        assert sum(parts) == held.peak
        assert min(parts) >= 0
        assert parts.gradients == resident["gradients"]
        assert parts.optimizer == resident.get("optimizer", 0)
        assert parts.activations > 0


def test_where_arrival_decides_the_times_are_those_of_one_iteration():
    """The one of median time is shown of three; the first, to get warm, has no times."""
    program = server_program(FirstCome(), [1, 1])
    (queue,) = program.queues
    (pull, push), (other, last) = queue.requests.values()
    orders = [(pull, push, other, last), (pull, other, push, last), (other, pull, last, push)]
    orders.append((pull, other, last, push))
    decisions = [
        [Decision(*pair) for pair in zip(queue.accepts, order, strict=True)] for order in orders
    ]
    records = [
        RankRecord(
            [[float(index) for index in range(len(listed))] for _ in range(3)],
            [[index + lasts for index in range(len(listed))] for lasts in (9.0, 2.0, 3.0)],
            [[(1.0, held, activation(0)), (2.0, -held, activation(0))] for held in (4, 5, 6)],
            HELD,
            decisions=decisions if rank == 0 else [[]] * 4,
        )
        for rank, listed in enumerate(program.ranks)
    ]
    timeline, times = merge(program, records)
    assert times == [16.0, 9.0, 10.0]
    assert timeline.iteration_time == 10.0
    assert [sample.peak for sample in timeline.memory] == [11] * 3
    assert timeline.decisions == decisions[3]
    assert timeline.idle == [queue.steps[0], queue.steps[1]]
    for accept, request in timeline.decisions:
        at = max(timeline.posted[accept], timeline.posted[request])
        assert timeline.start[accept] == timeline.start[request] == at
    measurement = Measurement(timeline, times, [], 0.0, decisions=decisions)
    again = from_json(program, json.loads(json.dumps(to_json(measurement))))
    assert (again.decisions, again.timeline.decisions) == (decisions, timeline.decisions)
    assert again.timeline.idle == timeline.idle


def test_a_measurement_survives_the_pipe_between_processes(run):
    ran = run(**RUNS[0])
    again = from_json(ran.program, to_json(ran.measurement))
    for column in ("posted", "start", "end"):
        ours, theirs = (getattr(m.timeline, column) for m in (ran.measurement, again))
        assert np.array_equal(ours, theirs)
    assert isinstance(again, Measurement)
    assert isinstance(again.timeline, Timeline)
    assert to_json(again) == to_json(ran.measurement)
    parts = [held.peak_parts for held in again.timeline.memory]
    assert parts == [held.peak_parts for held in ran.measurement.timeline.memory]
    assert all(isinstance(of_rank, MemoryParts) for of_rank in parts)

"""Bytes held over time, worked out by hand and against the schedule's promise."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import load, predict
from simulator.cluster.profile import Profile, Timing
from simulator.cluster.resolve import from_profile, resolve
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from simulator.timeline.memory import memory_samples, usual_memory
from simulator.timeline.timeline import MemorySamples


def compute(allocates: dict[str, int], frees: tuple[str, ...] = (), op: Op = Op.FORWARD) -> Task:
    tensors = tuple(Tensor(TensorName.other(name), nbytes) for name, nbytes in allocates.items())
    return Task(op, stage=0, allocates=tensors, frees=tuple(map(TensorName.other, frees)))


def test_by_hand() -> None:
    """Two microbatches: allocated when posted, freed when done, resident throughout."""
    forward = compute({"saved": 10, "out": 3})
    backward = compute({"grad": 5}, ("saved", "out"), Op.BACKWARD)
    send = Task(Op.SEND, 0, stream=Stream.send(1), peer=1, frees=(TensorName.other("grad"),))
    order = [(forward, 0), (forward, 1), (backward, 0), (backward, 1), (send, 0), (send, 1)]
    program = Program([[Instruction(task, m) for task, m in order]], [{"a": 60, "b": 40}])
    posted = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0])
    end = np.array([1.0, 2.0, 3.0, 4.0, 3.5, 6.0])
    (sample,) = memory_samples(program, posted, end)
    held = dict(zip(sample.times.tolist(), sample.nbytes.tolist(), strict=True))  # last at a time
    assert held == {0.0: 113, 1.0: 126, 2.0: 131, 3.0: 123, 3.5: 118, 4.0: 105, 6.0: 100}
    assert sample.times[0] == 0.0
    assert sample.nbytes[0] == 100
    assert sample.peak == 131


def test_what_ends_frees_before_what_begins_allocates() -> None:
    first, second = compute({"a": 10}, ("a",)), compute({"b": 10}, ("b",))
    program = Program([[Instruction(first), Instruction(second)]])
    (sample,) = memory_samples(program, np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    assert sample.peak == 10


def test_ranks_do_not_mix() -> None:
    small, large = compute({"a": 1}, ("a",)), compute({"a": 7}, ("a",))
    program = Program([[Instruction(small)], [], [Instruction(large)]], [{}, {"p": 5}, {"p": 100}])
    samples = memory_samples(program, np.array([0.0, 3.0]), np.array([1.0, 4.0]))
    assert [sample.peak for sample in samples] == [1, 5, 107]
    assert [sample.nbytes.tolist() for sample in samples] == [[0, 1, 0], [5], [100, 107, 100]]
    assert samples[2].times.tolist() == [0.0, 3.0, 4.0]


def peaks(schedule: str, m: int) -> list[int]:
    """Peak above what is resident, in units of what a stage saves per microbatch."""
    experiment = load(
        None,
        [
            *("workload.model=mlp", "workload.layers=4", "workload.hidden=64"),
            *("parallel.pipeline=4", f"parallel.microbatches={m}", "cluster.preset=dgx-h100"),
            f"parallel.schedule={schedule}",
        ],
    )
    prediction = predict(experiment, resolve(experiment))
    resident = [sum(held.values()) for held in prediction.program.resident]
    tokens = 4 * experiment.workload.sequence
    saved = 2 * tokens * 256 * 4  # both sides of the GELU
    return [
        (sample.peak - held) // saved
        for sample, held in zip(prediction.timeline.memory, resident, strict=True)
    ]


@pytest.mark.parametrize("m", [1, 2, 4, 6])
def test_activations_grow_with_the_microbatches_in_flight(m: int) -> None:
    """GPipe holds m stages' worth on every rank, 1F1B min(m, p-r); tensors at the stage's
    boundaries are a quarter or an eighth of that and may add one or two."""
    for found, flights in (
        (peaks("gpipe", m), [m] * 4),
        (peaks("1f1b", m), [min(m, 4 - rank) for rank in range(4)]),
        (peaks("naive", m), [1] * 4),
    ):
        assert all(n <= peak <= 1.5 * n + 1 for peak, n in zip(found, flights, strict=True))


def samples(times: list[float], held: list[int]) -> MemorySamples:
    return MemorySamples(np.array(times), np.array(held))


PASS = Instruction(Task(Op.FORWARD, 0))
MESSAGE = Instruction(Task(Op.SEND, 0, stream=Stream.send(1), peer=1))


def test_samples_of_a_usual_step_are_put_on_the_median_clock() -> None:
    posted = np.array([[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]])
    end = np.array([[2.0, 3.0], [4.0, 6.0], [8.0, 12.0]])
    held = [1, 5, 2, 1]
    steps = [samples([0.0, *row], held) for row in np.column_stack([posted, end[:, 1]])]
    for chosen in range(3):
        rows = [(chosen + more) % 3 for more in (1, 0, 2)]
        peaks = [  # only the chosen one has the median peak
            steps[row]._replace(nbytes=steps[row].nbytes + more)
            for row, more in zip(rows, (-1, 0, 1), strict=True)
        ]
        usual = usual_memory(
            peaks, [PASS, PASS], posted[rows], end[rows], end[rows].max(axis=1).tolist()
        )
        assert usual.times.tolist() == [0.0, 2.0, 4.0, 6.0]
        assert usual.nbytes.tolist() == held


def test_times_between_events_stay_between_them_and_none_is_after_the_last() -> None:
    posted, end = np.full((3, 1), 1.0), np.array([[2.0], [3.0], [4.0]])
    steps = [samples([0.0, 0.5, 1.5, 9.0], [1, 2, 3, 1])] * 3
    usual = usual_memory(steps, [PASS], posted, end, [2.0, 9.0, 4.0])  # the last one: 4 becomes 3
    assert usual.times.tolist() == pytest.approx([0.0, 0.5, 1.0 + 0.5 * 2 / 3, 3.0])


def test_what_a_pass_changes_is_drawn_at_that_pass_whenever_messages_end() -> None:
    """A message of 1 byte ends before the second pass begins, in the median step behind it."""
    instructions = [PASS, MESSAGE, PASS]
    posted = np.array([[0.0, 2.0, 6.0], [0.0, 2.0, 4.0], [0.0, 2.0, 4.0]])
    end = np.array([[2.0, 4.0, 8.0], [2.0, 7.0, 6.0], [2.0, 8.0, 6.0]])
    held = [1, 2, 1, 9, 0]
    early = samples([0.0, 2.0, 4.0, 6.0, 8.0], held)
    usual = usual_memory(
        [early, samples([0.0], [4]), samples([0.0], [99])], instructions, posted, end, [8, 7, 8]
    )
    assert usual.nbytes.tolist() == held
    assert usual.times.tolist() == [0.0, 2.0, 4.0, 4.0, 6.0]


@pytest.mark.parametrize("data", [1, 2])
def test_a_predicted_curve_changes_when_the_bars_above_it_begin_or_end(data: int) -> None:
    plan = ["parallel.pipeline=2", f"parallel.data={data}", "parallel.microbatches=4"]
    spread = Timing.of([1e-4, 5e-4, 2e-3, 2e-2])
    profile = Profile(
        {"cores": 4}, messages=[(8, spread)], collectives={Op.ALL_REDUCE: {2: [(8, spread)]}}
    )
    prediction = predict(load(None, plan), from_profile(profile))
    assert "iteration_time_p90_s" in prediction.to_json()
    timeline = prediction.timeline
    for row, held in enumerate(timeline.memory):
        mine = timeline.rank == row
        events = np.concatenate([[0.0], timeline.posted[mine], timeline.end[mine]])
        away = np.abs(held.times[:, None] - events).min(axis=1)
        assert away.max() < 1e-12
        assert np.all(np.diff(held.times) >= 0)
        assert held.times[-1] <= timeline.end[mine].max()

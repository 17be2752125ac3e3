"""Two timelines of one program: the errors, and what each cause adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator import Program, load, lower, predict
from simulator.analysis.comparison import compare_timelines
from simulator.cluster.resolve import resolve
from simulator.timeline.statistics import Statistics
from simulator.timeline.timeline import MemorySamples, Timeline

PLAN = [
    *("workload.model=unit", "workload.forward=1", "workload.backward_input=0.5"),
    *("workload.backward_weight=0.5", "parallel.pipeline=2", "parallel.microbatches=2"),
    "parallel.schedule=gpipe",
]


def run(*changes: str) -> tuple[Program, Timeline]:
    experiment = load(None, [*PLAN, *changes])
    prediction = predict(experiment, resolve(experiment))
    return prediction.program, prediction.timeline


def test_a_timeline_agrees_with_itself() -> None:
    program, timeline = run()
    timeline.meta["noise_floor"] = 0.25
    found = compare_timelines(timeline, timeline, program)
    assert found.iteration_time_error == found.instruction_start_error == 0
    assert found.peak_memory_error == 0
    assert found.noise_floor == 0.25
    assert set(found.attribution.values()) == {0.0}
    assert all(mine == theirs for _, _, mine, theirs in found.rows)


def test_errors_are_signed_and_relative_to_the_measurement() -> None:
    """Forward passes take 2 s instead of 1 s: (m+p-1)(F+B) is 9 s against 6 s."""
    program, predicted = run()
    _, measured = run("workload.forward=2")
    found = compare_timelines(predicted, measured, program)
    assert found.iteration_time_error == (6 - 9) / 9
    assert compare_timelines(measured, predicted, program).iteration_time_error == (9 - 6) / 6
    assert found.attribution == {
        "compute_s": 3.0,
        "communication_s": 0.0,
        "host_gaps_s": 0.0,
        "late_in_turn_s": 0.0,
        "remainder_s": 0.0,
    }
    rows = {name: (count, mine, theirs) for name, count, mine, theirs in found.rows}
    assert rows["F"] == (4, 1.0, 2.0)
    assert rows["B"] == (4, 1.0, 1.0)


def test_starts_by_hand() -> None:
    """With p2p every start of GPipe on two ranks is off by none, one or two messages."""
    _, predicted = run()
    _, measured = run("workload.p2p=0.5")
    labels = zip(measured.labels(), predicted.start, measured.start, strict=True)
    late = {label: theirs - mine for label, mine, theirs in labels}
    assert late["0F1"] == 0
    assert late["1F0"] == late["1SEND_B0"] == 0.5
    assert late["0B0"] == 1.0
    found = compare_timelines(predicted, measured)
    assert found.instruction_start_error == sum(late.values()) / len(late) / 7.0
    assert found.attribution is None


def test_communication_and_host_gaps_are_told_apart() -> None:
    program, predicted = run()
    _, measured = run("workload.p2p=0.5")
    late = replace(
        measured,
        posted=measured.posted + 0.25,
        start=measured.start + 0.25,
        end=measured.end + 0.25,
    )
    found = compare_timelines(predicted, late, program).attribution
    assert found == {
        "compute_s": 0.0,
        "communication_s": 1.0,
        "host_gaps_s": 0.25,  # before the first instructions
        "late_in_turn_s": 0.0,
        "remainder_s": 0.0,
    }


def test_the_parts_add_up_to_the_difference() -> None:
    experiment = load(None, ["parallel.data=2", "parallel.bucket_mb=0.5"])
    program = lower(experiment)
    timelines = []
    for preset in ("laptop", "dgx-a100-80gb"):
        chosen = load(None, [f"cluster.preset={preset}"]).cluster
        cluster = resolve(experiment.model_copy(update={"cluster": chosen}))
        timelines.append(predict(experiment, cluster, program).timeline)
    found = compare_timelines(*timelines, program)
    difference = timelines[1].iteration_time - timelines[0].iteration_time
    assert sum(found.attribution.values()) == pytest.approx(difference, rel=1e-9)
    assert found.attribution["compute_s"] < 0


def test_spans_are_joined_by_name_whatever_their_order() -> None:
    program, timeline = run("workload.p2p=0.5")
    order = np.random.default_rng(0).permutation(len(timeline))
    columns = ("rank", "kind", "microbatch", "posted", "start", "end")
    shuffled = replace(timeline, **{name: getattr(timeline, name)[order] for name in columns})
    found = compare_timelines(timeline, shuffled, program)
    assert found.instruction_start_error == 0
    assert set(found.attribution.values()) == {0.0}


def test_a_given_iteration_time_is_what_errors_are_relative_to() -> None:
    _, timeline = run()
    slower = replace(timeline, statistics=Statistics(8.0, 8.0, 8.0))
    assert compare_timelines(timeline, slower).iteration_time_error == -0.25
    found = compare_timelines(slower, timeline)
    assert found.iteration_time_error == pytest.approx(8 / 6 - 1)


def test_memory_error_is_of_the_rank_where_it_is_largest() -> None:
    _, timeline = run()

    def held(*peaks: int) -> Timeline:
        memory = [MemorySamples(np.zeros(1), np.array([peak])) for peak in peaks]
        return replace(timeline, memory=memory)

    assert compare_timelines(held(100, 50), held(100, 100)).peak_memory_error == -0.5
    assert compare_timelines(held(150, 90), held(100, 100)).peak_memory_error == 0.5
    assert compare_timelines(held(1, 1), held(0, 1)).peak_memory_error == 0.0  # of nothing
    assert compare_timelines(replace(timeline, memory=[]), held(1, 1)).peak_memory_error == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("parallel.pipeline=3", "2 ranks predicted, 3 measured"),
        ("parallel.microbatches=3", "rank 0, 0F2 was not predicted"),
        ("parallel.microbatches=1", "rank 0, 0F1 was not measured"),
    ],
)
def test_other_programs_are_refused(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^not the same program: {message}$"):
        compare_timelines(run()[1], run(change)[1])


def test_an_empty_measurement_is_refused() -> None:
    _, timeline = run()
    empty = replace(timeline, end=np.zeros(len(timeline)))
    with pytest.raises(ValueError, match="measured timeline is empty"):
        compare_timelines(timeline, empty)

"""Several training steps in one program: what follows what, and what overlaps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import lower, predict
from simulator.experiment_file import experiment
from simulator.program.check import check_program
from simulator.program.operations import Op

GPT: dict[str, Any] = {"model": "gpt", "layers": 4, "hidden": 256, "preset": "dgx-a100-40gb"}

DRAINED = [
    {"pipeline": 4, "microbatches": 8, "schedule": "1f1b"},
    {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1"},
    {"data": 4, "microbatches": 2, "zero": 3},
    {"tensor": 2, "data": 2, "clip_norm": 1.0},
    {"data": 2, "zero": 2, "recompute": "full"},
]


@pytest.mark.parametrize("keys", DRAINED, ids=str)
def test_eight_steps_take_eight_times_one(keys: dict[str, Any]) -> None:
    """Nothing of these plans is under way when a step ends on any rank."""
    one, eight = (predict(experiment(**GPT, **keys, horizon=h)) for h in (1, 8))
    assert eight.iteration_time_s == pytest.approx(8 * one.iteration_time_s, rel=1e-9)
    assert eight.peak_memory_bytes == one.peak_memory_bytes
    assert eight.tokens_per_s == pytest.approx(one.tokens_per_s, rel=1e-9)
    assert eight.mfu == pytest.approx(one.mfu, rel=1e-9)
    assert len(eight.program) == 8 * len(one.program)
    steps = eight.metrics.steps
    assert steps is not None
    assert steps.horizon == eight.program.horizon == eight.timeline.horizon == 8
    assert steps.steady_s == pytest.approx(one.iteration_time_s, rel=1e-9)


def test_gathers_of_updated_parameters_overlap_the_next_forward_pass() -> None:
    keys = GPT | {"data": 4, "zero": 1, "bucket_mb": 1.0, "layers": 8}
    one, four = (predict(experiment(**keys, horizon=h)) for h in (1, 4))
    assert four.iteration_time_s < 4 * one.iteration_time_s * (1 - 1e-3)
    first = four.program.ranks[0]
    for segment in {i.task.layers for i in first if i.task.op is Op.FORWARD}:
        use = next(i for i in first if i.task.layers == segment and i.step == 1)
        buckets = [b.weights for b in four.program.buckets[0] if segment in b.segments]
        gathers = [i for i in first if i.task.tensor in buckets and i.step == 0]
        waited = any(gathers[-1] in i.after for i in first[: use.index + 1] if i.step == 1)
        assert waited, f"{use.label} does not wait for {gathers[-1].label}"


def test_labels_and_tensors_of_steps_differ() -> None:
    program = lower(experiment(**GPT, pipeline=2, microbatches=2, horizon=2))
    labels = [i.label for i in program.ranks[0]]
    assert len(set(labels)) == len(labels)
    assert {label.partition(":")[0] for label in labels if ":" in label} == {"s1"}
    assert [label.removeprefix("s1:") for label in labels[len(labels) // 2 :]] == labels[
        : len(labels) // 2
    ]


def test_pipedream_is_not_drained_between_steps() -> None:
    """A step takes m (F + B) once the pipeline is full, and (p - 1) (F + B) more if drained."""
    keys = {"model": "unit", "pipeline": 4, "microbatches": 8, "schedule": "pipedream"}
    many = predict(experiment(**keys, horizon=8))
    steps = many.metrics.steps
    assert steps is not None
    assert steps.steady_s is not None
    assert steps.drained_s == pytest.approx(predict(experiment(**keys)).iteration_time_s)
    assert steps.drained_s / steps.steady_s == pytest.approx((8 + 3) / 8, rel=1e-9)
    assert steps.mean_s == pytest.approx((7 * steps.steady_s + steps.drained_s) / 8, rel=1e-9)


def test_synchronous_schedules_are_drained_between_steps() -> None:
    drained = predict(experiment(model="unit", pipeline=4, microbatches=8, horizon=3)).metrics.steps
    assert drained is not None
    assert drained.steady_s == pytest.approx(drained.first_s)
    assert drained.drained_s is None


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["gpipe", "1f1b", "pipedream", "zb-h1"]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([1, 2]),
)
def test_programs_of_several_steps_end_and_are_no_slower(
    schedule: str, pipeline: int, microbatches: int, horizon: int, data: int
) -> None:
    keys = {
        "model": "mlp",
        "layers": 3,
        "hidden": 32,
        "preset": "dgx-a100-40gb",
        "schedule": schedule,
        "pipeline": pipeline,
        "microbatches": microbatches,
        "data": data,
    }
    one, several = (lower(experiment(**keys, horizon=h)) for h in (1, horizon))
    check_program(several)
    assert several.horizon == horizon
    assert len(several) == horizon * len(one) or schedule == "pipedream"
    times = [predict(experiment(**keys, horizon=h)).iteration_time_s for h in (1, horizon)]
    assert times[1] <= horizon * times[0] * (1 + 1e-9)

"""The calls of a rank are found by step and bucket, also where schedules split backward passes."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.template import Call
from simulator.strategies.gradients.step_calls import StepCalls
from simulator.strategies.lowered import Lowered
from simulator.strategies.lowering import apply_chain, begin

KEYS = ["model=mlp", "layers=4", "hidden=64", "sequence=8", "microbatches=3", "horizon=2"]


def lowered(*settings: str) -> Lowered:
    return apply_chain(begin(load(None, [*KEYS, "clip_norm=1", *settings])))


@pytest.mark.parametrize(
    "schedule", ["gpipe", "1f1b", "zb-h1", "zb-v", "interleaved-1f1b", "dualpipe-v"]
)
def test_a_step_has_one_last_gradient_one_first_use_and_one_update(schedule: str) -> None:
    virtual = 2 if schedule in ("zb-v", "interleaved-1f1b", "dualpipe-v") else 1
    plan = lowered(
        "pipeline=2", f"schedule={schedule}", f"virtual_stages={virtual}", "microbatches=4"
    )
    for rank in plan.ranks:
        mine = StepCalls(plan.calls[rank], 4)
        order = plan.calls[rank]
        for bucket in plan.buckets[rank]:
            for step in range(2):
                norm, update = mine.updates(step, bucket)
                assert first(norm) is Op.GRADIENT_NORM
                assert first(update) is Op.OPTIMIZER_STEP
                call, number = mine.last_gradient(step, bucket)
                task = call.template.entries[number].task
                assert task.layers in bucket.segments
                assert task.op in (Op.BACKWARD, Op.BACKWARD_WEIGHT)
                used = mine.first_use(step, bucket)
                assert used is not None
                assert used[0].microbatch == 4 * step
                assert order.index(used[0]) < order.index(call) < order.index(norm)
            assert mine.first_use(2, bucket) is None


def test_the_sum_within_a_replica_comes_behind_its_last_backward_pass() -> None:
    plan = lowered("pipeline=1", "data=2")
    mine, (bucket,) = StepCalls(plan.calls[0], 3), plan.buckets[0]
    call, number = mine.last_gradient(1, bucket)
    assert call.template.entries[number].task.op is Op.ALL_REDUCE
    assert call.microbatch == 5


def test_tasks_are_inserted_where_they_are_asked_for() -> None:
    plan = lowered("pipeline=1")
    calls = plan.calls[0]
    mine = StepCalls(calls, 3)
    task = calls[0].template.entries[0].task
    last, _ = mine.insert(task, 1, [])
    one, two = (mine.insert(task, 0, [(calls[1], 0)], behind=calls[1])[0] for _ in range(2))
    three, _ = mine.insert(task, 0, [], before=calls[0])
    assert mine.calls() == [three, *calls[:2], one, two, *calls[2:], last]
    assert one.template is two.template
    assert one.template is not three.template is last.template
    assert last.step == 1


def test_a_bucket_of_nobody_has_no_gradient() -> None:
    plan = lowered("pipeline=1")
    with pytest.raises(ValueError, match="step 0 has no gradient of gradients:7"):
        StepCalls(plan.calls[0], 3).last_gradient(0, Bucket(((7, 8),)))


def first(call: Call) -> Op:
    return call.template.entries[0].task.op

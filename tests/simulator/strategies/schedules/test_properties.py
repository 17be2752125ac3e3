"""What every pipeline schedule must do, whatever its order: any plan it does not refuse
becomes a valid program in which every pass happens once and after what it needs."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.program.operations import Op
from simulator.strategies.schedules.registry import SCHEDULES, Plan

ONE_STAGE = ("naive", "gpipe", "1f1b", "eager-1f1b", "zb-h2")
INTERLEAVED = ("interleaved-1f1b", "looped-bfs", "zb-h1")
ON_A_V = ("zb-v", "dualpipe-v")
FIXED = (*ONE_STAGE, *INTERLEAVED, *ON_A_V)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    ranks = draw(st.integers(1, 8))
    return Plan(ranks, draw(st.integers(1, 4 * ranks)), draw(st.integers(1, 3)))


def experiment(schedule: str, plan: Plan, *more: str) -> Experiment:
    return load(
        None,
        [
            "workload.model=unit",
            f"parallel.schedule={schedule}",
            f"parallel.pipeline={plan.num_ranks}",
            f"parallel.microbatches={plan.num_microbatches}",
            f"parallel.virtual_stages={plan.virtual_stages}",
            *more,
        ],
    )


def allowed(schedule: str, plan: Plan) -> bool:
    """Which plans each schedule takes, written down a second time."""
    ranks, microbatches, stages = plan.num_ranks, plan.num_microbatches, plan.virtual_stages
    even = microbatches % max(1, microbatches // ranks) == 0
    return {
        "interleaved-1f1b": stages >= 2 and even,
        "looped-bfs": True,
        "zb-h1": stages == 1 or even,
        "zb-v": stages == 2,
        "dualpipe-v": stages == 2 and microbatches >= 2 * ranks,
    }.get(schedule, stages == 1)


@pytest.mark.parametrize("schedule", FIXED)
@given(plan=plans())
@example(plan=Plan(8, 32, 3))
@example(plan=Plan(8, 32, 2))
@example(plan=Plan(8, 32, 1))
def test_every_plan_lowers_or_is_refused(schedule: str, plan: Plan) -> None:
    """`lower` validates: messages match, nothing deadlocks, all memory is given back."""
    if allowed(schedule, plan):
        assert SCHEDULES[schedule].refusal(plan) is None
        lower(experiment(schedule, plan))
        return
    with pytest.raises(ExperimentError) as refused:
        lower(experiment(schedule, plan))
    message = str(refused.value)
    assert message.startswith(f"parallel.schedule = {schedule!r} with ")
    assert "; allowed" in message and "\n" not in message


@pytest.mark.parametrize("schedule", FIXED)
@given(plan=plans())
def test_every_pass_once_and_after_what_it_needs(schedule: str, plan: Plan) -> None:
    """On its own rank: `F` before `B` or `I`, `I` before `W`; a backward whole or in halves."""
    module = SCHEDULES[schedule]
    if not allowed(schedule, plan):
        return
    owner = module.placement(plan)
    assert sorted(set(owner)) == list(range(plan.num_ranks))
    assert len(owner) == plan.num_stages
    for rank in range(plan.num_ranks):
        steps = module.order(plan, rank)
        position = {step: index for index, step in enumerate(steps)}
        assert len(position) == len(steps)
        expected = 0
        for stage in (s for s, place in enumerate(owner) if place == rank):
            for microbatch in range(plan.num_microbatches):
                at = {op: position.get((op, stage, microbatch)) for op in Op}
                chain = [at[Op.FORWARD], at[Op.BACKWARD]]
                if at[Op.BACKWARD] is None:
                    chain = [at[Op.FORWARD], at[Op.BACKWARD_INPUT], at[Op.BACKWARD_WEIGHT]]
                assert None not in chain and chain == sorted(chain)
                expected += len(chain)
        assert len(steps) == expected


@pytest.mark.parametrize(
    ("schedule", "plan", "message"),
    [
        ("zb-h2", Plan(4, 8, 2), "virtual_stages = 2; allowed: 1"),
        ("zb-v", Plan(4, 8, 1), "virtual_stages = 1; allowed: 2"),
        ("dualpipe-v", Plan(4, 8, 3), "virtual_stages = 3; allowed: 2"),
        (
            "dualpipe-v",
            Plan(4, 7, 2),
            "microbatches = 7; allowed with pipeline = 4: 8 or more",
        ),
        ("interleaved-1f1b", Plan(4, 8, 1), "virtual_stages = 1; allowed: 2 or more"),
        (
            "interleaved-1f1b",
            Plan(4, 9, 2),
            "microbatches = 9; allowed with pipeline = 4: a multiple of the 2 rounds "
            "(microbatches // pipeline); nearest: 8 or 10",
        ),
        (
            "zb-h1",
            Plan(4, 19, 2),
            "microbatches = 19; allowed with pipeline = 4: a multiple of the 4 rounds "
            "(microbatches // pipeline); nearest: 16 or 20",
        ),
    ],
)
def test_refusals_say_what_is_allowed(schedule: str, plan: Plan, message: str) -> None:
    assert SCHEDULES[schedule].refusal(plan) == message


@given(plan=plans())
def test_the_nearest_numbers_that_are_offered_are_allowed_and_nearest(plan: Plan) -> None:
    module = SCHEDULES["interleaved-1f1b"]
    plan = plan._replace(virtual_stages=2)
    refusal = module.refusal(plan)
    if refusal is None:
        return
    below, above = (int(number) for number in refusal.rpartition(": ")[2].split(" or "))
    fits = [m for m in range(1, 100) if not module.refusal(plan._replace(num_microbatches=m))]
    assert below == max(m for m in fits if m < plan.num_microbatches)
    assert above == min(m for m in fits if m > plan.num_microbatches)


@pytest.mark.parametrize("schedule", INTERLEAVED)
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("model", ["mlp", "gpt"])
@pytest.mark.parametrize("data", [1, 2])
def test_real_models_with_virtual_stages(schedule: str, stages: int, model: str, data: int) -> None:
    """Stages of several segments, real tensors, and gradient traffic besides."""
    size = [f"workload.model={model}", "workload.layers=6", "workload.hidden=16"]
    parts = [f"parallel.data={data}", "parallel.bucket_mb=0.001"]
    program = lower(experiment(schedule, Plan(2, 4, stages), *size, *parts))
    assert program.num_stages == 2 * stages


@pytest.mark.parametrize("schedule", ON_A_V)
@pytest.mark.parametrize("model", ["mlp", "gpt"])
@pytest.mark.parametrize("data", [1, 2])
def test_real_models_on_a_v(schedule: str, model: str, data: int) -> None:
    """No message where the V turns: both stages are on the last rank."""
    size = [f"workload.model={model}", "workload.layers=4", "workload.hidden=16"]
    parts = [f"parallel.data={data}", "parallel.bucket_mb=0.001"]
    program = lower(experiment(schedule, Plan(2, 4, 2), *size, *parts))
    messages = {
        (i.rank % 2, i.task.peer % 2, i.task.stage) for i in program if i.task.op is Op.SEND
    }
    assert messages == {(0, 1, 0), (1, 0, 1), (1, 0, 2), (0, 1, 3)}


@settings(max_examples=12)
@given(plan=plans())
def test_better_schedules_are_no_slower(plan: Plan) -> None:
    """One model of F = I = W, cut into p or into 2p stages: half a second each then."""
    plan = plan._replace(num_microbatches=max(plan.num_microbatches, 2 * plan.num_ranks))
    if plan.num_microbatches % (plan.num_microbatches // plan.num_ranks):
        return

    def seconds(schedule: str, stages: int = 1) -> float:
        keys = ("forward", "backward_input", "backward_weight")
        each = [f"workload.{key}={1 / stages}" for key in keys]
        one = experiment(schedule, plan._replace(virtual_stages=stages), *each)
        return predict(one, resolve(one)).iteration_time_s

    naive, gpipe = seconds("naive"), seconds("gpipe")
    assert naive >= gpipe == seconds("1f1b") == seconds("eager-1f1b") == seconds("looped-bfs")
    interleaved = seconds("interleaved-1f1b", 2)
    assert gpipe >= interleaved == seconds("looped-bfs", 2)
    zb_h1 = seconds("zb-h1")
    assert interleaved >= zb_h1 == seconds("zb-h2")
    assert zb_h1 >= seconds("zb-h1", 2) == seconds("zb-v", 2) == seconds("dualpipe-v", 2)

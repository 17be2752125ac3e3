"""The orders of passes are those of `torch.distributed.pipelining`, which only needs to
know how many stages there are to write them down."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from torch.distributed.pipelining import schedules

from simulator.program.operations import Op
from simulator.strategies.schedules.registry import SCHEDULES, Pass, Plan

# ours, torch's, stages a rank. Not Schedule1F1B: what torch 2.13 writes down for its last
# rank starts with microbatch 1, unlike what it runs.
PAIRS = [
    ("gpipe", "ScheduleGPipe", 1),
    ("eager-1f1b", "ScheduleInterleaved1F1B", 1),
    ("interleaved-1f1b", "ScheduleInterleaved1F1B", 2),
    ("interleaved-1f1b", "ScheduleInterleaved1F1B", 3),
    ("looped-bfs", "ScheduleLoopedBFS", 1),
    ("looped-bfs", "ScheduleLoopedBFS", 2),
    ("looped-bfs", "ScheduleLoopedBFS", 3),
    ("zb-h1", "ScheduleInterleavedZeroBubble", 1),
    ("zb-h1", "ScheduleInterleavedZeroBubble", 2),
    ("zb-h1", "ScheduleInterleavedZeroBubble", 3),
    ("zb-v", "ScheduleZBVZeroBubble", 2),
    ("dualpipe-v", "ScheduleDualPipeV", 2),
]
TORCH_WANTS_MORE = {"eager-1f1b", "zb-h1"}
"""With one stage a rank: rounds of equal size, which make no difference then."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """torch warns of many small things when it makes a schedule."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def torch_schedule(name: str, plan: Plan):
    """torch's schedule as rank 0 sees it; raises ValueError where it refuses `plan`."""
    kind = getattr(schedules, name, None)
    if kind is None:
        pytest.skip(f"this torch has no {name}")
    stages = [
        SimpleNamespace(
            stage_index=local * plan.num_ranks,
            num_stages=plan.num_stages,
            group_size=plan.num_ranks,
            group_rank=0,
            is_first=local == 0,
            is_last=plan.num_stages == 1,
            has_backward=True,
            submod=None,
        )
        for local in range(plan.virtual_stages)
    ]
    if issubclass(kind, schedules.PipelineScheduleSingle):
        return kind(stages[0], plan.num_microbatches)
    return kind(stages, plan.num_microbatches)


def passes(action) -> list[Pass]:
    """One action of torch's as ours: none where it computes nothing, two for a pair."""
    if action is None or repr(action).endswith("REDUCE_GRAD"):
        return []
    pair = getattr(action, "sub_actions", None)
    if pair:
        return [step for part in pair for step in passes(part)]
    label = re.fullmatch(r"(\d+)([FBIW])(\d+)", repr(action))
    assert label, action
    return [Pass(Op(label[2]), int(label[1]), int(label[3]))]


def orders(schedule, num_ranks: int) -> list[list[Pass]]:
    if isinstance(schedule, schedules.PipelineScheduleSingle):
        order = schedule._get_pipeline_order()
    else:
        order = schedule.pipeline_order
    return [
        [step for action in order[rank] for step in passes(action)] for rank in range(num_ranks)
    ]


@pytest.mark.parametrize(("ours", "torchs", "stages"), PAIRS)
@pytest.mark.parametrize("ranks", [2, 3, 4, 6])
def test_orders_are_torchs(ours: str, torchs: str, stages: int, ranks: int) -> None:
    """Pass by pass on every rank, and where torch refuses a plan, so do we."""
    schedule = SCHEDULES[ours]
    compared = 0
    for microbatches in range(1, 4 * ranks + 1):
        plan = Plan(ranks, microbatches, stages)
        refusal = schedule.refusal(plan)
        try:
            theirs = torch_schedule(torchs, plan)
        except ValueError:
            assert refusal is not None or (stages == 1 and ours in TORCH_WANTS_MORE)
            continue
        assert refusal is None
        expected = orders(theirs, ranks)
        assert [schedule.order(plan, rank) for rank in range(ranks)] == expected
        compared += 1
    assert compared > 2 * ranks


@pytest.mark.parametrize(("ours", "torchs", "stages"), PAIRS[1:])
def test_placements_are_torchs(ours: str, torchs: str, stages: int) -> None:
    plan = Plan(4, 8, stages)
    mapping = torch_schedule(torchs, plan).stage_index_to_group_rank
    assert SCHEDULES[ours].placement(plan) == [mapping[stage] for stage in range(plan.num_stages)]

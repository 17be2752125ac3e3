"""What the check by calls vouches for, the check instruction by instruction accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from one_tensor import FREE, MAKE, SEND
from simulator import load, lower
from simulator.program.call_columns import CallColumns
from simulator.program.call_lifetimes import are_sound
from simulator.program.errors import ProgramError
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template, argument
from simulator.program.tensor_lifetimes import check_tensors
from simulator.program.tensors import activation

PLANS = [
    ("schedule=1f1b", "microbatches=4"),
    ("schedule=zb-h1", "microbatches=3", "data=2"),
    ("schedule=interleaved-1f1b", "virtual_stages=2", "tensor=2", "sequence_parallel=true"),
    ("schedule=gpipe", "recompute=full", "context=2", "microbatches=2"),
    ("schedule=pipedream", "microbatches=4"),
    ("pipeline=1", "data=4", "zero=3", "prefetch=2", "microbatches=2", "bucket_mb=0.1"),
    ("pipeline=1", "data=4", "zero=2", "zero_group=2", "microbatches=3", "bucket_mb=0.1"),
]


def lists(plan: Sequence[str]) -> list[list[Call]]:
    return lower(load(None, [f"parallel.{setting}" for setting in plan])).calls


@pytest.mark.parametrize("plan", PLANS, ids=" ".join)
def test_lists_of_all_kinds_are_vouched_for(plan: Sequence[str]) -> None:
    assert all(are_sound(CallColumns(calls)) for calls in lists(plan))


def damaged(template: Template, number: int, how: str) -> Template:
    """Return a template in which one entry is wrong in some way, if it can be."""
    entry = template.entries[number]
    task = entry.task
    if how == "wait":
        return template.changed({number: entry._replace(waits=entry.waits[1:])})
    if how == "free":
        task = replace(task, frees=task.frees[1:])
    elif how == "make":
        task = replace(task, allocates=task.allocates[1:])
    elif how == "free early":
        made = [tensor.name for other in template.entries for tensor in other.task.allocates]
        task = replace(task, frees=(*task.frees, *made[:1]))
    elif how == "read":
        task = replace(task, sources=(*task.sources, activation(number)))
    elif how == "shift":
        return template.changed({number: entry._replace(shift=1 if entry.shift == 0 else 0)})
    return template.changed({number: entry._replace(task=task)})


@settings(max_examples=300)
@given(
    st.sampled_from(PLANS),
    st.randoms(use_true_random=False),
    st.sampled_from(["wait", "free", "make", "free early", "read", "shift"]),
)
def test_no_damage_is_vouched_for(plan: Sequence[str], random, how: str) -> None:
    calls = random.choice(lists(plan))
    call = random.choice(calls)
    call.template = damaged(call.template, random.choice(call.template.order), how)
    if are_sound(CallColumns(calls)):
        check_tensors(Program(calls=[calls]).ranks[0])


def test_what_is_read_beside_must_have_ended_before_it_is_freed() -> None:
    forward = Call(Template([Entry(MAKE), Entry(SEND)]), 0)
    backward = Call.of_task(FREE, 0)
    waiting = Call(Template([Entry(FREE, (argument(0),))]), 0, [(forward, 1)])
    assert not are_sound(CallColumns([forward, backward]))
    with pytest.raises(ProgramError, match="does not wait for 0SEND0"):
        check_tensors(Program(calls=[[forward, backward]]).ranks[0])
    assert are_sound(CallColumns([forward, waiting]))


@pytest.mark.parametrize(
    "tasks", [(MAKE,), (FREE,), (MAKE, MAKE, FREE), (MAKE, FREE, FREE), (FREE, MAKE)]
)
def test_made_once_and_freed_once(tasks: Sequence[Task]) -> None:
    assert not are_sound(CallColumns([Call.of_task(task, 0) for task in tasks]))
    assert are_sound(CallColumns([Call.of_task(MAKE, 0), Call.of_task(FREE, 0)]))

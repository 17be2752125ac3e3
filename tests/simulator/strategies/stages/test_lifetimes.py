"""Every activation is freed once in a microbatch, after all who read it."""

from __future__ import annotations

from collections import Counter

import pytest

from simulator import load
from simulator.program.operations import Op
from simulator.strategies.lowering import apply_chain, begin
from simulator.strategies.stages.lifetimes import lifetimes
from simulator.strategies.stages.recompute import Rerun

PLANS = [
    [],
    ["parallel.tensor=2"],
    ["parallel.tensor=2", "parallel.sequence_parallel=true"],
    ["parallel.context=2"],
    ["workload.model=moe-gpt", "parallel.expert=2"],
]


def cut(keys: list[str]):
    lowered = apply_chain(
        begin(load(None, ["parallel.pipeline=1", "parallel.bucket_mb=0.1", *keys]))
    )
    return lowered.stages[0][0].pieces


@pytest.mark.parametrize("keys", PLANS)
def test_a_tensor_is_freed_once_forwards_or_backwards(keys: list[str]) -> None:
    found = lifetimes(cut(keys), sends=False, rerun=None)
    whole = [n for (op, _), names in found.freed.items() for n in names if op in "FB"]
    halves = [n for (op, _), names in found.freed.items() for n in names if op in "FIW"]
    dropped = [name for names in found.dropped.values() for name in names]
    assert set(Counter(whole + dropped).values()) <= {1, 2}
    assert Counter(whole) == Counter(halves)
    assert not found.remade


@pytest.mark.parametrize("keys", PLANS)
def test_what_is_freed_forwards_inside_a_block_is_made_again(keys: list[str]) -> None:
    pieces = cut(keys)
    found = lifetimes(pieces, sends=False, rerun=Rerun(pieces))
    freed = {n for (op, _), names in found.freed.items() for n in names if op is Op.FORWARD}
    assert {pieces.flow.activation(boundary) for boundary in found.remade} <= freed


def test_what_nobody_here_reads_is_freed_by_its_send() -> None:
    pieces = apply_chain(begin(load(None, ["pipeline=2"]))).stages[0][0].pieces
    assert lifetimes(pieces, sends=True, rerun=None).by_send == [
        pieces.flow.activation(pieces.last)
    ]
    assert lifetimes(pieces, sends=False, rerun=None).by_send == []


def test_what_is_read_and_not_kept_is_freed_by_its_send() -> None:
    keys = ["model=mlp", "skips=true", "layers=6", "pipeline=3"]
    stages = apply_chain(begin(load(None, keys))).stages
    first, middle = stages[0][0].pieces, stages[1][1].pieces
    assert first.outputs == middle.inputs == [2, 1]
    assert middle.outputs == [4, 2, 1]
    sent = lifetimes(middle, sends=True, rerun=None).by_send
    assert sorted(str(name) for name in sent) == ["act:1", "act:4"]  # block 2 keeps act:2
    assert [str(name) for name in lifetimes(first, sends=True, rerun=None).by_send] == ["act:2"]

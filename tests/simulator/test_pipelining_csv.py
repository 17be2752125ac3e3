"""The CSV form of a program."""

from __future__ import annotations

from simulator import load, lower
from simulator.strategies.pipelining_csv import to_csv

PLAN = ["workload.model=mlp", "parallel.microbatches=2", "parallel.pipeline=2", "parallel.data=2"]


def test_a_row_per_rank_with_every_label_once() -> None:
    program = lower(load(None, PLAN))
    rows = [row.split(",") for row in to_csv(program).splitlines()]
    assert rows == [[i.label for i in instructions] for instructions in program.ranks]
    assert all(len(row) == len(set(row)) for row in rows)


def test_passes_only_has_one_replica_and_whole_stages() -> None:
    cut = lower(load(None, [*PLAN, "parallel.bucket_mb=0.001"]))
    assert any(i.task.segment == 1 for i in cut)
    assert to_csv(cut, compute_only=True) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"

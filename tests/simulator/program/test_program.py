"""Labels, numbering, rendezvous and the hash of a program."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simulator import load, lower
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task, label_of

FORWARD = Task(Op.FORWARD, stage=0)


@pytest.mark.parametrize(
    ("task", "microbatch", "label"),
    [
        (Task(Op.FORWARD, stage=2), 0, "2F0"),
        (Task(Op.BACKWARD, stage=1, segment=0), 2, "1B2.0"),
        (Task(Op.SEND, stage=0, mnemonic="SEND_F"), 13, "0SEND_F13"),
        (Task(Op.ALL_REDUCE, stage=0, mnemonic="REDUCE_GRAD", segment=3), -1, "0REDUCE_GRAD.3"),
        (Task(Op.OPTIMIZER_STEP, stage=7), -1, "7STEP"),
    ],
)
def test_labels(task: Task, microbatch: int, label: str) -> None:
    assert Instruction(task, microbatch).label == label
    assert label_of(task.stage, task.name, microbatch, task.segment) == label


def test_instructions_are_numbered_by_rank_then_position() -> None:
    program = Program([[Instruction(FORWARD, 0)], [], [Instruction(FORWARD, m) for m in range(2)]])
    assert [(i.rank, i.index, i.uid) for i in program] == [(0, 0, 0), (2, 0, 1), (2, 1, 2)]
    assert (program.num_ranks, len(program)) == (3, 3)
    assert repr(program.ranks[2][1]) == "rank 2: 0F1"


def build(
    *,
    microbatch: int = 0,
    waits: bool = True,
    nbytes: int = 8,
    resident: int = 4,
    num_stages: int = 2,
    swap: bool = False,
    share: bool = True,
) -> Program:
    tasks = [Task(Op.SEND, stage=0, stream=Stream.send(1), peer=1, nbytes=nbytes) for _ in range(2)]
    forward = Instruction(FORWARD, microbatch)
    rank = [
        forward,
        Instruction(tasks[0], 0, (forward,) if waits else ()),
        Instruction(tasks[0 if share else 1], 1, (forward,)),
    ]
    if swap:
        rank[1:] = rank[:0:-1]
    return Program([rank], [{"parameters": resident}], num_stages=num_stages)


def test_equal_programs_have_equal_hashes() -> None:
    assert build().hash() == build().hash()
    # whether equal tasks are one object or two is not part of the program
    assert build(share=False).hash() == build().hash()


@pytest.mark.parametrize(
    "change",
    [
        {"microbatch": 1},
        {"waits": False},
        {"nbytes": 9},
        {"resident": 5},
        {"num_stages": 3},
        {"swap": True},
    ],
)
def test_any_difference_changes_the_hash(change: dict[str, int]) -> None:
    assert build(**change).hash() != build().hash()


def test_the_hash_is_the_same_in_another_process() -> None:
    settings = ["parallel.data=2", "parallel.bucket_mb=0.5"]
    code = f"from simulator import load, lower; print(lower(load(None, {settings!r})).hash())"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert other.stdout.strip() == lower(load(None, settings)).hash()


def test_different_plans_have_different_hashes() -> None:
    plans = ["pipeline=3", "data=2", "data=3", "microbatches=3", "schedule=gpipe", "bucket_mb=1"]
    hashes = [lower(load(None, [f"parallel.{plan}"])).hash() for plan in plans]
    assert len(set(hashes)) == len(plans)
    assert hashes[-1] == lower(load(None)).hash()  # one replica: nothing is bucketed


def test_a_program_is_shown_in_a_few_words() -> None:
    plan = load(None, ["parallel.data=4", "parallel.pipeline=1"])
    whole, folded = lower(plan), lower(plan, [0, 0, 0, 0])
    assert repr(whole) == f"Program(4 lists, {len(whole)} instructions)"
    assert repr(folded) == f"Program(1 list for 4 ranks, {len(folded)} instructions)"

"""Ranks that do the same with other partners have one digest, and any difference shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import load, lower
from simulator.program.arrival import FirstCome
from simulator.program.bucket import Bucket
from simulator.program.codecs.codec import Encoding
from simulator.program.codecs.top_k import TopK
from simulator.program.columns import columns_of_list
from simulator.program.digest import ListDigests
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorKind, TensorName, activation, saved_tensor
from written_out import written_out

TASKS = (
    Task(Op.RECV, 1, (2, 4), 0, "RECV_F", Stream.recv(1), 1, tensor=activation(2), nbytes=8),
    Task(
        Op.FORWARD, 1, (2, 4), 0, sources=(activation(2),), allocates=(Tensor(saved_tensor(2), 4),)
    ),
    Task(Op.BACKWARD, 1, (2, 4), 0, frees=(saved_tensor(2),), version=0),
    Task(
        Op.ALL_REDUCE,
        1,
        (2, 4),
        0,
        "SUM",
        Stream.along("data"),
        -1,
        (2, 6, 10),
        TensorName(TensorKind.GRADIENTS, 2),
        16,
    ),
)
BUCKET = Bucket(((2, 4),), replicas=(2, 6, 10), shards=(2, 3), zero=1, copies=1, nbytes=16)
OTHER = {
    "op": Op.SEND,
    "stage": 2,
    "layers": (2, 5),
    "segment": 1,
    "mnemonic": "X",
    "stream": Stream.along("other"),
    "peer": 3,
    "group": (2, 6),
    "tensor": TensorName.other("y"),
    "nbytes": 9,
    "sources": (TensorName.other("y"),),
    "reduction": "mean",
    "allocates": (Tensor(TensorName.other("y"), 4),),
    "frees": (TensorName.other("y"),),
    "version": 1,
    "root": 6,
    "queue": "q",
    "policy": FirstCome(),
    "coefficients": (0.5,),
    "dtype": "fp16",
    "encoding": Encoding(TopK(density=0.5), 4),
    "segments": ((2, 5),),
    "replicas": (2, 6, 11),
    "shards": (2, 4),
    "zero": 2,
    "copies": 2,
    "server": 7,
    "part": 0,
}


def digest(tasks: tuple[Task, ...] = TASKS, rank: int = 2, bucket: Bucket = BUCKET) -> bytes:
    instructions = [Instruction(task, number) for number, task in enumerate(tasks)]
    for index, instruction in enumerate(instructions):
        instruction.rank, instruction.index = rank, index
        instruction.after = tuple(instructions[max(0, index - 1) : index])
    return ListDigests().digest(rank, columns_of_list(instructions), {"parameters": 4}, [bucket])


def moved(task: Task, by: int) -> Task:
    """The same task on the rank that is `by` further."""
    group = tuple(rank + by for rank in task.group)
    if task.peer < 0:
        return replace(task, group=group)
    return replace(task, peer=task.peer + by, stream=Stream.recv(task.peer + by), group=group)


@given(st.integers(0, 1000))
def test_ranks_with_partners_at_the_same_distance_are_alike(by: int) -> None:
    bucket = replace(
        BUCKET,
        replicas=tuple(rank + by for rank in BUCKET.replicas),
        shards=tuple(rank + by for rank in BUCKET.shards),
    )
    assert digest(tuple(moved(task, by) for task in TASKS), 2 + by, bucket) == digest()


@pytest.mark.parametrize("number", range(len(TASKS)))
@pytest.mark.parametrize("name", [field.name for field in fields(Task)])
def test_every_field_of_a_task_counts_but_one(number: int, name: str) -> None:
    if name == "loss_weight":  # follows from the number of microbatches and of ranks
        changed = replace(TASKS[number], loss_weight=0.25)
        assert digest((*TASKS[:number], changed, *TASKS[number + 1 :])) == digest()
        return
    changed = replace(TASKS[number], **{name: OTHER[name]})
    assert digest((*TASKS[:number], changed, *TASKS[number + 1 :])) != digest()


@pytest.mark.parametrize("name", [field.name for field in fields(Bucket)])
def test_every_field_of_a_bucket_counts(name: str) -> None:
    assert digest(bucket=replace(BUCKET, **{name: OTHER.get(name, 17)})) != digest()


def test_the_order_of_a_group_counts() -> None:
    assert digest((*TASKS[:3], replace(TASKS[3], group=(6, 2, 10)))) != digest()


def test_a_peer_counts_where_the_stream_says_the_same() -> None:
    """Rank 2 receives from 1 or from 3."""
    before, behind = (replace(TASKS[0], peer=peer, stream=Stream.recv(peer)) for peer in (1, 3))
    assert digest((before,)) != digest((behind,))


SETTINGS = ["workload.model=gpt", "workload.layers=4", "parallel.tensor=2", "parallel.zero=1"]


def swap_lists(program: Program) -> None:
    program.ranks[0], program.ranks[-1] = program.ranks[-1], program.ranks[0]


def drop_last(program: Program) -> None:
    program.ranks[0].pop()


def drop_wait(program: Program) -> None:
    instruction = next(i for i in program.ranks[1] if i.after)
    instruction.after = instruction.after[1:]


def move_microbatch(program: Program) -> None:
    program.ranks[2][0].microbatch += 1


def more_resident(program: Program) -> None:
    program.resident[3]["parameters"] += 1


def no_bucket(program: Program) -> None:
    program.buckets[1].pop()


def swap_instructions(program: Program) -> None:
    first, second, *_ = program.ranks[0]
    program.ranks[0][:2] = [second, first]


@pytest.mark.parametrize(
    "mutate",
    [
        swap_lists,
        drop_last,
        drop_wait,
        move_microbatch,
        more_resident,
        no_bucket,
        swap_instructions,
    ],
)
def test_any_change_of_any_rank_changes_the_hash(mutate: Callable[[Program], None]) -> None:
    program = lower(load(None, [*SETTINGS, "parallel.data=2"]))
    before = program.hash()
    assert before == lower(load(None, [*SETTINGS, "parallel.data=2"])).hash()
    changed = written_out(program)
    assert changed.hash() == before
    mutate(changed)
    assert written_out(changed).hash() != before


def test_another_division_among_the_lists_changes_the_hash() -> None:
    """Ranks 0 and 1 do the same, or ranks 0 and 2."""
    hashes = set()
    for list_of in ([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1, 1]):
        lists = [[Instruction(Task(Op.FORWARD, stage))] for stage in (0, 1)]
        hashes.add(Program(lists, list_of=list_of).hash())
    assert len(hashes) == 4

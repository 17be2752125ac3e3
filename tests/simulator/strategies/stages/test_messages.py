"""Passes become segments and messages: small programs written out by hand."""

from __future__ import annotations

import pytest

from simulator import Program, load, lower
from simulator.program.csv_text import to_csv
from simulator.program.operations import Op
from simulator.program.tensors import saved_tensor


def program(schedule: str, p: int, m: int, model: str = "unit", *more: str) -> Program:
    settings = [
        f"workload.model={model}",
        f"parallel.schedule={schedule}",
        f"parallel.pipeline={p}",
        f"parallel.microbatches={m}",
        *more,
    ]
    return lower(load(None, settings))


GPIPE = [
    "0F0 0SEND_F0 0RECV_B0 0F1 0SEND_F1 0RECV_B1 0B0 0B1",
    "1RECV_F0 1RECV_F1 1F0 1F1 1B0 1SEND_B0 1B1 1SEND_B1",
]
ONE_F_ONE_B = [
    "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0F2 0SEND_F2 0RECV_B1 0B0 0RECV_B2 0B1 0B2",
    "1RECV_F0 1RECV_F1 1F0 1SEND_F0 1RECV_B0 1F1 1SEND_F1 1RECV_F2 1B0 1SEND_B0"
    " 1RECV_B1 1F2 1SEND_F2 1RECV_B2 1B1 1SEND_B1 1B2 1SEND_B2",
    "2RECV_F0 2F0 2RECV_F1 2B0 2SEND_B0 2F1 2RECV_F2 2B1 2SEND_B1 2F2 2B2 2SEND_B2",
]
NAIVE = [
    "0RECV_B0 0F0 0SEND_F0 0B0 0RECV_B1 0F1 0SEND_F1 0B1",
    "1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1",
]


@pytest.mark.parametrize(
    ("schedule", "m", "expected"),
    [("gpipe", 2, GPIPE), ("1f1b", 3, ONE_F_ONE_B), ("naive", 2, NAIVE)],
)
def test_programs_by_hand(schedule: str, m: int, expected: list[str]) -> None:
    """The receive for a pass is posted one pass ahead, and after the pass before that."""
    assert to_csv(program(schedule, len(expected), m)).replace(",", " ").splitlines() == expected


def test_what_waits_for_what_by_hand() -> None:
    first, second = (
        {i.label: [other.label for other in i.after] for i in instructions}
        for instructions in program("gpipe", 2, 2).ranks
    )
    assert first == {
        "0F0": [],
        "0SEND_F0": ["0F0"],
        "0F1": [],
        "0SEND_F1": ["0F1"],
        "0RECV_B0": ["0F0"],  # posted while F1 runs
        "0RECV_B1": ["0F1"],
        "0B0": ["0RECV_B0"],
        "0B1": ["0RECV_B1"],
    }
    assert second == {
        "1RECV_F0": [],
        "1RECV_F1": [],
        "1F0": ["1RECV_F0"],
        "1F1": ["1RECV_F1"],
        "1B0": [],
        "1SEND_B0": ["1B0"],
        "1B1": [],
        "1SEND_B1": ["1B1"],
    }


def test_messages_name_peer_stream_and_payload() -> None:
    middle = program("gpipe", 3, 1, "mlp", "workload.hidden=8", "workload.sequence=2").ranks[1]
    boundary = 4 * 2 * 8 * 4  # 4 samples × 2 positions × 8 units × 4 bytes
    assert [
        (i.task.name, str(i.task.stream), i.task.peer, str(i.task.tensor), i.task.nbytes)
        for i in middle
        if i.task.op in (Op.SEND, Op.RECV)
    ] == [
        ("RECV_F", "recv:0", 0, "act:2", boundary),
        ("RECV_B", "recv:2", 2, "grad:3", boundary),
        ("SEND_F", "send:2", 2, "act:3", boundary),
        ("SEND_B", "send:0", 0, "grad:2", boundary),
    ]


def test_replicas_talk_among_themselves() -> None:
    ranks = program("gpipe", 3, 1, "unit", "parallel.data=2").ranks
    peers = [{i.task.peer for i in instructions} - {-1} for instructions in ranks]
    assert peers == [{1}, {0, 2}, {1}, {4}, {3, 5}, {4}]


def test_a_stage_in_segments_runs_backward_in_reverse() -> None:
    cut = program("gpipe", 1, 1, "mlp", "parallel.data=2", "parallel.bucket_mb=0.001")
    passes = [i for i in cut.ranks[0] if i.task.op in (Op.FORWARD, Op.BACKWARD)]
    assert [i.label for i in passes] == [
        *("0F0.0", "0F0.1", "0F0.2", "0F0.3"),
        *("0B0.3", "0B0.2", "0B0.1", "0B0.0"),
    ]
    assert [i.task.layers for i in passes[:4]] == [(0, 1), (1, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize("bucket_mb", [0.001, 25])
def test_tensors_of_a_stage_by_hand(bucket_mb: float) -> None:
    """MLP of two blocks and a loss, one microbatch, one stage or one segment per block."""
    size = ["workload.layers=2", "workload.hidden=8", "workload.sequence=2"]
    cut = program("gpipe", 1, 1, "mlp", *size, "parallel.data=2", f"parallel.bucket_mb={bucket_mb}")
    passes = {i.label: i.task for i in cut.ranks[0]}
    activation, perceptron = 4 * 2 * 8 * 4, 2 * 4 * 2 * 32 * 4  # input; fc1 out and GELU out
    if bucket_mb == 25:
        saved = (activation + perceptron) + activation + perceptron + activation + activation
        assert [(str(t.name), t.nbytes) for t in passes["0F0"].allocates] == [("saved:0", saved)]
        assert passes["0B0"].frees == (saved_tensor(0),)
        assert passes["0B0"].allocates == ()
        return
    made = {
        label: {str(t.name): t.nbytes for t in task.allocates}
        for label, task in passes.items()
        if task.allocates
    }
    assert made == {
        "0F0.0": {"saved:0": activation + perceptron, "act:1": activation},
        "0F0.1": {"saved:1": perceptron + activation + activation},
        "0B0.1": {"grad:1": activation},
    }
    assert set(map(str, passes["0B0.1"].frees)) == {"saved:1", "act:1"}
    assert set(map(str, passes["0B0.0"].frees)) == {"saved:0", "grad:1"}

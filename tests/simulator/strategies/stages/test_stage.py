"""The tasks of a stage: one for all microbatches, with what they read, make and free."""

from __future__ import annotations

from simulator import load
from simulator.program.operations import Op
from simulator.program.tensors import TensorKind
from simulator.strategies.lowering import apply_chain, begin
from simulator.strategies.stages.stage import Stage


def stages(*keys: str) -> list[Stage]:
    """The stage of every rank of a pipeline of two."""
    lowered = apply_chain(begin(load(None, list(keys))))
    return [next(iter(lowered.stages[rank].values())) for rank in lowered.ranks]


def test_a_task_is_made_once() -> None:
    first, _ = stages()
    assert first.compute(Op.FORWARD, 0) is first.compute(Op.FORWARD, 0)
    assert first.send(forwards=True)[0] is first.send(forwards=True)[0]


def test_both_sides_of_a_message_agree() -> None:
    first, last = stages()
    for sender, receiver, forwards in ((first, last, True), (last, first, False)):
        (send,), (receive,) = sender.send(forwards), receiver.receive(forwards)
        assert (send.tensor, send.nbytes) == (receive.tensor, receive.nbytes)
        assert [tensor.name for tensor in receive.allocates] == [receive.tensor]
    assert first.send(forwards=False) == last.send(forwards=True) == []


def test_the_halves_of_a_backward_pass_hand_on_what_is_deferred() -> None:
    first, _ = stages("parallel.schedule=zb-h1")
    halves = first.compute(Op.BACKWARD_INPUT, 0), first.compute(Op.BACKWARD_WEIGHT, 0)
    deferred = [
        tensor.name for tensor in halves[0].allocates if tensor.name.kind is TensorKind.DEFERRED
    ]
    assert set(deferred) <= set(halves[1].frees)
    assert deferred


def test_what_runs_again_keeps_the_graph() -> None:
    first, _ = stages("parallel.recompute=full")
    again = first.recompute(len(first.pieces.spans) - 1)
    assert [task.op for task in again] == [Op.RECOMPUTE]
    assert any(tensor.name.kind is TensorKind.SAVED for tensor in again[0].allocates)
    forward = first.compute(Op.FORWARD, len(first.pieces.spans) - 1)
    assert not any(tensor.name.kind is TensorKind.SAVED for tensor in forward.allocates)
    assert stages()[0].recompute(0) == []

"""Which tensors segments read and make, by hand on a chain with an exchange."""

from __future__ import annotations

from simulator.program.operations import Op
from simulator.strategies.stages.dataflow import Flow, saved_bytes
from simulator.workloads.layer import Exchange, Layer


def chain(forward: Op, backward: Op | None) -> Flow:
    """Two layers with an exchange between them."""
    between = Layer("x", exchange=Exchange("tensor", forward, backward), output_bytes=8)
    return Flow([Layer("a", output_bytes=4), between, Layer("b", output_bytes=2)])


def test_an_exchange_in_place_makes_no_tensor() -> None:
    flow = chain(Op.ALL_REDUCE, None)
    assert flow.source(2) == 1
    assert flow.activation(2) == flow.activation(1)


def test_a_gather_makes_one() -> None:
    flow = chain(Op.ALL_GATHER, Op.REDUCE_SCATTER)
    assert flow.source(2) == 2
    assert flow.activation(2) != flow.activation(1)
    assert flow.returned(1) == flow.gradients(1)


def test_inputs_and_outputs_of_layers() -> None:
    flow = chain(Op.ALL_GATHER, Op.REDUCE_SCATTER)
    assert (flow.inputs(2, 3), flow.outputs(2, 3)) == ([2], [])
    assert (flow.inputs(0, 1), flow.outputs(0, 1)) == ([], [1])


def test_what_leaves_is_not_counted_as_saved() -> None:
    flow = Flow([Layer("a", output_bytes=4, saved_bytes=16), Layer("b", saved_bytes=1)])
    assert saved_bytes(flow, 0, 1) == 16
    assert saved_bytes(flow, 0, 2) in (17, 21)  # with the tensor between, if b keeps it
    assert saved_bytes(flow, 0, 2) == 17 + 4 * flow.kept(1, 0, 2)

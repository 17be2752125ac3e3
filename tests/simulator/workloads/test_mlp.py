"""Skip connections of a perceptron: which blocks they join, and what is refused."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowering import apply_chain, begin
from simulator.strategies.stages.dataflow import Flow
from simulator.workloads.describe import describe
from simulator.workloads.mlp import skips

SKIPS = ["model=mlp", "skips=true"]


def test_a_block_of_the_second_half_reads_its_mirror_image() -> None:
    """Boundary i + 1 is what block i puts out; the middle ones have nothing to skip."""
    assert skips(6) == {4: 2, 5: 4}
    assert skips(5) == {3: 1, 4: 3}
    assert skips(2) == {}
    layers = describe(load(None, [*SKIPS, "layers=6"]))
    readers = Flow(layers).readers
    assert readers[1:6] == [[1, 5], [2, 4], [3], [4], [5]]


def test_what_crosses_a_cut_is_in_order_of_need() -> None:
    flow = Flow(describe(load(None, [*SKIPS, "layers=6"])))
    crossing = [flow.crossing(cut) for cut in range(8)]
    assert crossing == [[], [1], [2, 1], [3, 2, 1], [4, 2, 1], [5, 1], [6], []]


def test_of_other_models_one_tensor_crosses_between_stages() -> None:
    for keys in (["model=gpt", "tensor=2"], ["model=moe-gpt", "expert=2"], ["model=resnet50"]):
        lowered = apply_chain(begin(load(None, [*keys, "pipeline=2"])))
        assert len(lowered.stages[0][0].pieces.outputs) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["model=gpt", "skips=true"], "workload.skips = true: only for workload.model = 'mlp'"),
        ([*SKIPS, "layers=2"],
         "workload.skips = true: 2 blocks have none to skip; allowed: with workload.layers of 3 "
         "or more"),
        ([*SKIPS, "tensor=2"],
         "parallel.tensor = 2: blocks with workload.skips = true are not split over ranks; "
         "allowed: 1"),
        ([*SKIPS, "pipeline=2", "virtual_stages=2", "schedule=interleaved-1f1b", "microbatches=2"],
         "parallel.virtual_stages = 2: 2 tensors of this model cross from one stage to the next, "
         "and a rank would have one of them twice; allowed: 1"),
    ],
)  # fmt: skip
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        apply_chain(begin(load(None, keys)))
    assert str(error.value) == message

"""The work of operations on layers: halves of a backward pass, and bytes of a step by hand."""

from __future__ import annotations

import pytest

from simulator import Experiment, load
from simulator.engine.layer_work import work_of
from simulator.program.operations import Op
from simulator.workloads.describe import describe
from simulator.workloads.layer import flops

PLANS = [
    *([f"workload.model={model}"] for model in ("mlp", "gpt", "moe-gpt", "bert")),
    *([f"workload.model={model}"] for model in ("alexnet", "vgg16", "resnet50")),
    ["parallel.tensor=2", "parallel.sequence_parallel=true"],
    ["workload.model=mlp", "parallel.tensor=2", "parallel.tensor_style=row"],
    ["workload.model=moe-gpt", "parallel.expert=2"],
    ["parallel.context=2"],
    ["parallel.context=2", "parallel.context_style=ulysses"],
    ["parallel.recompute=selective"],
    ["workload.attention=flash"],
]


def plan(*keys: str) -> Experiment:
    return load(None, ["parallel.pipeline=1", "parallel.microbatches=1", *keys])


@pytest.mark.parametrize("keys", PLANS, ids=" ".join)
def test_a_whole_backward_pass_is_its_two_halves(keys: list[str]) -> None:
    """Every product has its gradients, each as large as itself, with its sizes exchanged."""
    experiment = plan(*keys)
    for layer in describe(experiment):
        whole, left, right = (
            work_of(op, layer, experiment.workload, experiment.parallel)
            for op in (Op.BACKWARD, Op.BACKWARD_INPUT, Op.BACKWARD_WEIGHT)
        )
        assert flops(whole.matmuls) == flops(left.matmuls) + flops(right.matmuls)
        assert (whole.nbytes, whole.kernels) == (left.nbytes, left.kernels)
        for matmul in layer.matmuls:
            made = (*matmul.backward_input, *matmul.backward_weight)
            assert len(made) == 1 + matmul.into_input
            assert {gradient.flops for gradient in made} == {matmul.flops}
            sides = sorted((matmul.m, matmul.n, matmul.k))
            assert all(sorted((g.m, g.n, g.k)) == sides for g in made)


@pytest.mark.parametrize(
    ("keys", "bytes_a_parameter", "kernels"),
    [
        # parameter read and written, gradient read and zeroed; Adam's two states of 4 bytes
        (["workload.dtype=fp32", "workload.optimizer=sgd"], 4 + 4 + 4 + 4, 2),
        (["workload.dtype=fp32", "workload.optimizer=adam"], 16 + 2 * (4 + 4), 2),
        # clipping reads and writes the gradient once more
        (["workload.dtype=fp32", "workload.optimizer=sgd", "workload.clip_norm=1"], 16 + 8, 3),
        # master weights of 4 bytes are read and written as states are, the copy of 2 written
        (["workload.dtype=bf16", "workload.optimizer=adam"], 2 + 2 + 2 + 3 * (4 + 4), 2),
    ],
)
def test_an_optimizer_step_moves_parameters_gradients_and_states(
    keys: list[str], bytes_a_parameter: int, kernels: int
) -> None:
    experiment = plan("workload.model=mlp", *keys)
    layer = next(layer for layer in describe(experiment) if layer.parameters)
    work = work_of(Op.OPTIMIZER_STEP, layer, experiment.workload, experiment.parallel)
    assert work.matmuls == ()
    assert work.nbytes == bytes_a_parameter * layer.parameters
    assert work.kernels == kernels


def test_a_step_on_shards_moves_a_share_and_zeroes_whole_gradients_in_stage_1() -> None:
    found = {}
    for zero in (0, 1, 2):
        more = ["parallel.data=4", f"parallel.zero={zero}"]
        experiment = plan("workload.model=mlp", "workload.optimizer=sgd", *more)
        layer = next(layer for layer in describe(experiment) if layer.parameters)
        work = work_of(Op.OPTIMIZER_STEP, layer, experiment.workload, experiment.parallel)
        found[zero] = work.nbytes / (4 * layer.parameters)
    assert found == {0: 4, 1: 3 / 4 + 1, 2: 4 / 4}


def test_communication_has_no_work_here() -> None:
    experiment = plan("workload.model=mlp")
    layer = next(layer for layer in describe(experiment) if layer.parameters)
    with pytest.raises(ValueError, match="no cost for ALL_REDUCE"):
        work_of(Op.ALL_REDUCE, layer, experiment.workload, experiment.parallel)

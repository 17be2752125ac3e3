"""Recomputation: which instructions run again, what is kept, what it costs, what is refused."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from simulator import predict
from simulator.analysis.metrics import model_flops, recomputed_flops
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.pass_key import pass_key
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.tensors import TensorKey, TensorKind, tensor_key
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe

MODELS = ("gpt", "bert", "moe-gpt", "mlp", "resnet50", "unit")


def make(model: str = "gpt", **parallel: Any) -> Experiment:
    shapes = {"resnet50": {"image_size": 64}, "unit": {}}
    shape = {"layers": 4, "hidden": 64, "heads": 4, "sequence": 32}
    workload = {"model": model, **shapes.get(model, shape)}
    cluster = {"preset": "dgx-h100"}
    return parse({"workload": workload, "parallel": parallel, "cluster": cluster})


def labels(experiment: Experiment, rank: int = 0) -> str:
    return " ".join(instruction.label for instruction in lower(experiment).ranks[rank])


def test_every_block_runs_again_before_its_backward_pass() -> None:
    assert labels(make(recompute="full")) == (
        "0F0.0 0F0.1 0F0.2 0F0.3 0R0.3 0B0.3 0R0.2 0B0.2 0R0.1 0B0.1 0R0.0 0B0.0 0STEP"
    )
    halves = make(recompute="full", pipeline=2, microbatches=2, schedule="zb-h1")
    assert labels(halves, 1).startswith(
        "1RECV_F0 1F0.0 1F0.1 1RECV_F1 1R0.1 1I0.1 1R0.0 1I0.0 1SEND_B0 "
    )
    assert "1W0.1 1W0.0" in labels(halves, 1)


def test_exchanges_run_again_but_for_those_whose_result_the_next_block_reads() -> None:
    keys = {"recompute": "full", "tensor": 2}
    text = labels(make("mlp", tensor_style="column", **keys))
    assert "0F0.0 0ALL_GATHER_F0.1 0F0.2 0ALL_GATHER_F0.3 0F0.4" in text
    assert text.endswith(
        "0REDUCE_SCATTER_B0.3 0R0.0 0ALL_GATHER_R0.1 0R0.2 0B0.2 0REDUCE_SCATTER_B0.1 0B0.0 0STEP"
    )
    program = lower(make(sequence_parallel=True, **keys))
    ops = [i.task.name for i in program.ranks[0] if i.task.op in COLLECTIVES]
    assert not any(name.endswith("AGAIN") for name in ops)
    for op in ("ALL_GATHER", "REDUCE_SCATTER"):
        assert ops.count(f"{op}_R") == ops.count(f"{op}_F") > 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "plan",
    [
        {"microbatches": 2},
        {"pipeline": 2, "microbatches": 4, "schedule": "zb-v", "virtual_stages": 2},
        {"data": 2, "pipeline": 2, "microbatches": 2, "bucket_mb": 1e-3},
    ],
    ids=lambda plan: ",".join(map(str, plan.values())),
)
def test_between_forward_and_recomputation_only_inputs_of_blocks_are_held(model, plan) -> None:
    if model == "unit":  # has no buckets
        plan = {key: value for key, value in plan.items() if key != "bucket_mb"}
    experiment = make(model, recompute="full", **plan)
    layers, program = describe(experiment), lower(experiment)
    for instructions in program.ranks:
        held: dict[TensorKey, tuple[int, int]] = {}  # by whom: stage, microbatch
        again: set[tuple[int, int]] = set()
        for instruction in instructions:
            task, microbatch = instruction.task, instruction.microbatch
            if task.op is Op.RECOMPUTE:
                again.add((task.stage, microbatch))
            for tensor in task.allocates:
                held[tensor_key(tensor.name, instruction.batch)] = task.stage, microbatch
            for name in task.frees:
                del held[tensor_key(name, instruction.batch)]
            for (name, _), pass_ in held.items():
                if pass_ not in again:
                    assert name.kind in (TensorKind.ACTIVATION, TensorKind.GRADIENT)
                    just_made = task.op is Op.FORWARD and name.boundary == task.layers[1]
                    assert layers[name.boundary].starts_block or just_made
        assert not held
        runs = {op: Counter((i.task.layers, i.microbatch) for i in instructions if i.task.op is op)
                for op in (Op.FORWARD, Op.RECOMPUTE)}  # fmt: skip
        assert runs[Op.RECOMPUTE] == runs[Op.FORWARD]


@pytest.mark.parametrize("plan", [{}, {"tensor": 4}, {"tensor": 4, "sequence_parallel": True}])
def test_less_is_held_the_more_is_computed_again(plan) -> None:
    def peak(how: str) -> int:
        experiment = make(recompute=how, microbatches=2, **plan)
        (memory, *_) = predict(experiment, resolve(experiment)).timeline.memory
        return memory.peak - int(memory.nbytes[0])

    none, selective, full = (peak(how) for how in ("none", "selective", "full"))
    assert full < selective < none


def test_selective_keeps_no_scores_and_computes_them_again() -> None:
    b, s, h, a = 4, 32, 64, 4
    plain, again = (describe(make(recompute=how))[1] for how in ("none", "selective"))
    assert plain.saved_bytes - again.saved_bytes == b * a * s * s * 4
    assert again.recomputed_flops == 2 * (2 * b * s * s * h)  # Q·Kᵀ and scores·V
    assert again.kind != plain.kind  # a profile tells them apart
    halves = [describe(make(recompute="selective", tensor=2))[index] for index in range(8)]
    (part,) = (layer for layer in halves if layer.whole[1] == "attention")
    assert 2 * part.recomputed_flops == again.recomputed_flops
    program, same = (lower(make(recompute=how)) for how in ("selective", "none"))
    assert [i.label for i in program] == [i.label for i in same]


@pytest.mark.parametrize("plan", [{}, {"pipeline": 2, "microbatches": 4}, {"data": 2, "tensor": 2}])
def test_flops_in_closed_form(plan) -> None:
    """Model FLOPs 72·B·L·s·h²·(1 + s/6h + V/12hL) (Korthikanti et al. 2022, appendix A). All
    forward passes are a third of them; the core of attention is 4·B·L·s²·h."""
    for how in ("none", "selective", "full"):
        experiment = make(recompute=how, **plan)
        w, batch = experiment.workload, experiment.global_batch
        s, h, length, v = w.sequence, w.hidden, w.layers, w.vocab
        model = 72 * batch * length * s * h * h * (1 + s / (6 * h) + v / (12 * h * length))
        extra = {"none": 0, "selective": 4 * batch * length * s * s * h, "full": model / 3}[how]
        assert model_flops(experiment) == pytest.approx(model, rel=1e-12)
        assert recomputed_flops(experiment) == pytest.approx(extra, rel=1e-12)
        result = predict(experiment, resolve(experiment))
        assert result.hfu / result.mfu == pytest.approx(1 + extra / model, rel=1e-12)


def test_a_pass_that_runs_again_costs_what_it_cost() -> None:
    experiment = make(recompute="full")
    program, cluster = lower(experiment), resolve(experiment)
    costs = costs_of(program, experiment, cluster)
    seconds = {(i.task.op, i.task.layers): costs.seconds(i) for i in program}
    again = {layers: s for (op, layers), s in seconds.items() if op is Op.RECOMPUTE}
    assert len(again) == 4
    for layers, cost in again.items():
        assert cost == seconds[Op.FORWARD, layers]
        segment = describe(experiment)[slice(*layers)]
        keys = {
            pass_key(op, segment, experiment.workload, experiment.parallel)
            for op in (Op.FORWARD, Op.RECOMPUTE)
        }
        assert len(keys) == 2  # calibration measures each


def test_time_grows_by_the_forward_share() -> None:
    """`unit`: F, R, I and W take a second each, so full recomputation adds a third."""

    def time(how: str, m: int, **plan: Any) -> float:
        seconds = dict.fromkeys(("forward", "backward_input", "backward_weight"), 1.0)
        experiment = parse({"workload": {"model": "unit", **seconds},
                            "parallel": {"recompute": how, "microbatches": m, **plan}})  # fmt: skip
        return predict(experiment, resolve(experiment)).timeline.iteration_time

    assert (time("none", 4), time("full", 4)) == (12.0, 16.0)
    p, m = 4, 8
    assert time("none", m, pipeline=p) == (m + p - 1) * 3.0
    # While a rank waits for a gradient it runs forward again: hidden in warm-up and drain.
    assert time("full", m, pipeline=p) == m * 4.0 + (p - 1) * 3.0


@pytest.mark.parametrize("model", ["mlp", "alexnet", "unit"])
def test_selective_needs_attention(model) -> None:
    message = (
        f"parallel.recompute = 'selective': {model} has no attention; allowed: 'none' or 'full'"
    )
    with pytest.raises(ExperimentError, match=re.escape(message)):
        parse({"workload": {"model": model}, "parallel": {"recompute": "selective"}})

"""What is computed again in the backward pass changes memory and time, and no number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from runtime.ledger import SavedBytes
from runtime.recompute import run_again
from simulator.prediction import predict

TOLERANCE = 1e-10
HOW = ("selective", "full")

PLANS: list[dict[str, Any]] = [
    {"microbatches": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
    {"pipeline": 2, "microbatches": 4, "schedule": "interleaved-1f1b", "virtual_stages": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1"},
    {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2},
    {"data": 2, "microbatches": 2, "bucket_mb": 0.003},
    {"data": 2, "pipeline": 2, "microbatches": 2, "bucket_mb": 0.003, "optimizer": "adam"},
]
CASES = [
    {"model": model, "recompute": how, **plan}
    for plan in PLANS
    for model in ("gpt", "bert", "moe-gpt", "mlp")
    for how in HOW
    if (model, how) != ("mlp", "selective")
]
IMAGES = [
    {"model": "alexnet", "image_size": 63, "classes": 5, "global_batch": 4, **plan}
    for plan in ({"microbatches": 2}, {"pipeline": 2, "microbatches": 2, "schedule": "zb-h1"})
]
SHARED = {"sequence_parallel": True}
TENSOR = [
    {"tensor": 2, "layers": 2, "hidden": 16, "heads": 4, "recompute": how, **plan}
    for how in HOW
    for plan in (
        {"model": "gpt"},
        {"model": "gpt", "microbatches": 2, **SHARED},
        {"model": "bert", "microbatches": 2},
        {"model": "bert", **SHARED},
        {"model": "gpt", "pipeline": 2, "microbatches": 2, "schedule": "zb-h1", **SHARED},
        {"model": "bert", "pipeline": 2, "microbatches": 3, **SHARED},
        {"model": "gpt", "data": 2, "bucket_mb": 0.001, **SHARED},
        {"model": "mlp", "tensor_style": "column", "microbatches": 2},
        {"model": "mlp", "tensor_style": "row", "microbatches": 2},
        {"model": "mlp", "tensor_style": "megatron", "microbatches": 2},
    )
    if (plan["model"], how) != ("mlp", "selective")
]
ASYNCHRONOUS = [
    {"model": "gpt", "recompute": how, "pipeline": 2, "microbatches": 4, "schedule": schedule}
    for how in HOW
    for schedule in ("pipedream", "pipedream-2bw")
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def without(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "recompute"}


@pytest.mark.parametrize(
    "keys",
    CASES + TENSOR + ASYNCHRONOUS + [{**keys, "recompute": "full"} for keys in IMAGES],
    ids=name_of,
)
def test_not_a_bit_is_different(run, keys):
    """The same products in the same order, on every rank, for three steps."""
    again, once = run(iterations=3, **keys), run(iterations=3, **without(keys))
    assert again.measurement.losses == once.measurement.losses
    assert len(again.shares) == len(once.shares) == once.program.num_ranks
    for mine, theirs in zip(again.shares, once.shares, strict=True):
        for ours, expected in zip(mine, theirs, strict=True):  # parameters, gradients
            assert ours.keys() == expected.keys()
            assert [key for key in expected if not torch.equal(ours[key], expected[key])] == []


@pytest.mark.parametrize("keys", CASES, ids=name_of)
def test_it_is_the_training_of_one_process(run, reference, keys):
    ran = run(iterations=3, **keys)
    parameters, gradients, losses = reference(ran.experiment)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for replica in range(ran.experiment.parallel.data):
        for ours, theirs in (
            (ran.gradients[replica], gradients),
            (ran.parameters[replica], parameters),
        ):
            assert ours.keys() == theirs.keys()
            for key, expected in theirs.items():
                scale = expected.abs().max().item()
                assert scale > 0, f"{key} says nothing"
                assert (ours[key] - expected).abs().max().item() <= TOLERANCE * scale, key


def test_tokens_that_are_routed_again_are_counted_once(run):
    keys = {"model": "moe-gpt", "capacity_factor": 0.5, "microbatches": 2}
    once, again = run(**keys).measurement, run(recompute="full", **keys).measurement
    assert once.moe is not None
    assert again.moe == once.moe


@pytest.mark.parametrize("keys", CASES + TENSOR + ASYNCHRONOUS, ids=name_of)
def test_every_tensor_has_the_bytes_the_program_says(run, keys):
    ran = run(iterations=3, **keys)
    for rank, instructions in enumerate(ran.program.ranks):
        held = ran.measurement.timeline.memory[rank].nbytes
        assert held[-1] == held[0] == sum(ran.program.resident[rank].values())
        changes = np.diff(held)
        sizes = {t.name: t.nbytes for i in instructions for t in i.task.allocates}
        allocated = [t.nbytes for i in instructions for t in i.task.allocates]
        freed = [sizes[name] for i in instructions for name in i.task.frees]
        assert Counter(changes[changes > 0].tolist()) == Counter(n for n in allocated if n)
        assert Counter((-changes[changes < 0]).tolist()) == Counter(n for n in freed if n)


@pytest.mark.parametrize(
    "keys",
    [keys for keys in CASES + TENSOR if keys.get("pipeline", 1) == 1],
    ids=name_of,
)
def test_peak_memory_is_as_predicted(run, keys):
    ran = run(iterations=3, **keys)
    predicted = predict(ran.experiment).timeline.memory
    assert [m.peak for m in ran.measurement.timeline.memory] == [m.peak for m in predicted]


def kept_by_a_layer(experiment) -> int:
    """Bytes that a transformer layer of gpt keeps of a microbatch, in 16 bits.

    Korthikanti et al. 2022, equations 1, 4 and 6 and section 5: s·b·h·(34 + 5·a·s/h), by t with
    tensor and sequence parallelism, without its second term if selective, 2·s·b·h if full.
    Theirs has dropout masks: a byte per value behind attention and MLP (2·s·b·h), and of the
    softmax a byte per value and its output once more (3·a·s²·b). Theirs leaves out the two
    statistics of each norm, which are 32-bit values.
    """
    w, p = experiment.workload, experiment.parallel
    s, b, h, a, t = w.sequence, experiment.microbatch_size, w.hidden, w.heads, p.tensor
    theirs = {
        "none": (34 * s * b * h + 5 * a * s * s * b),
        "selective": 34 * s * b * h,
        "full": 2 * s * b * h,
    }[p.recompute]
    masks = {
        "none": 2 * s * b * h + 3 * a * s * s * b,
        "selective": 2 * s * b * h,
        "full": 0,
    }[p.recompute]
    statistics = 0 if p.recompute == "full" else 2 * 2 * 4 * s * b
    return (theirs - masks + statistics) // t


@pytest.mark.parametrize("plan", [{}, {"tensor": 2, **SHARED}], ids=name_of)
@pytest.mark.parametrize("recompute", ["none", *HOW])
def test_a_layer_keeps_what_korthikanti_et_al_count_without_their_masks(run, recompute, plan):
    """What one more layer adds to the most that a rank held, above what is resident."""
    most = []
    for layers in (3, 4):
        ran = run(
            **{"model": "gpt", "layers": layers, "hidden": 16, "heads": 4, "dtype": "bf16"},
            **{"sequence": 24, "iterations": 1, "recompute": recompute, **plan},
        )
        memory = ran.measurement.timeline.memory[0]
        most.append(memory.peak - int(memory.nbytes[0]))
    assert most[1] - most[0] == kept_by_a_layer(ran.experiment)


def test_a_function_that_runs_again_keeps_its_input_only():
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    calls = []

    def function(y):
        calls.append(y)
        return (y.exp() * y).softmax(-1)

    (expected,) = torch.autograd.grad(function(x).square().sum(), x)
    calls.clear()
    with SavedBytes([x]) as saved:
        output = run_again(function, x)
    assert saved.nbytes == 0
    assert len(calls) == 1
    (found,) = torch.autograd.grad(output.square().sum(), x)
    assert len(calls) == 2
    assert torch.equal(found, expected)

"""What is computed again in the backward pass changes memory and time, and no number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from runtime.executor.ledger import SavedBytes
from runtime.launch.job import Job
from runtime.models.recompute import run_again
from simulator.experiment_file import parse
from simulator.prediction import predict

HOW = ("selective", "full")

PLANS: list[dict[str, Any]] = [
    {"microbatches": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
    {"pipeline": 2, "microbatches": 4, "schedule": "interleaved-1f1b", "virtual_stages": 2},
    {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1"},
    {"data": 2, "microbatches": 2, "bucket_mb": 0.003},
]
MORE_PLANS = [
    {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2},
    {"data": 2, "pipeline": 2, "microbatches": 2, "bucket_mb": 0.003, "optimizer": "adam"},
]
CASES = [
    {"model": model, "recompute": how, **plan}
    for plan in PLANS
    for model in ("gpt", "bert", "moe-gpt", "mlp")
    for how in HOW
    if (model, how) != ("mlp", "selective")
    if model == "gpt" or plan == PLANS[3]
] + [{"recompute": how, **plan} for plan in MORE_PLANS for how in HOW]
CONTEXT = [
    {"model": model, "recompute": "selective", "context": 2, "context_style": style, **more}
    for style, model, more in (
        ("ring", "gpt", {"microbatches": 2}),
        ("ring", "bert", {"pipeline": 2}),
        ("ulysses", "bert", {"pipeline": 2}),
    )
]
SHARED = {"sequence_parallel": True}
TENSOR = [
    {"tensor": 2, "layers": 2, "hidden": 16, "heads": 4, "recompute": how, **plan}
    for how in HOW
    for plan in (
        {"model": "gpt", "microbatches": 2, **SHARED},
        {"model": "gpt", "pipeline": 2, "microbatches": 2, "schedule": "zb-h1", **SHARED},
        {"model": "bert", "pipeline": 2, "microbatches": 3, **SHARED},
        {"model": "gpt", "data": 2, "bucket_mb": 0.001, **SHARED},
        {"model": "mlp", "tensor_style": "megatron", "microbatches": 2},
    )
    if (plan["model"], how) != ("mlp", "selective")
    if (plan["model"], how) != ("bert", "full")  # blocks as gpt's, in the cases above
]
EXPERT = [
    {"model": "moe-gpt", "expert": 2, "capacity_factor": 0.8, "recompute": "full", **plan}
    for plan in (
        {"microbatches": 2},
        {"pipeline": 2, "microbatches": 3, "schedule": "zb-h1"},
        {"tensor": 2, "hidden": 16, "heads": 4, **SHARED},
    )
]
SHARDED = [
    {"data": 2, "recompute": "full", "zero": zero, "microbatches": 2, "bucket_mb": 0.003, **plan}
    for zero, plan in ((2, {"pipeline": 2, "schedule": "zb-h1"}), (3, {}))
]
ASYNCHRONOUS = [
    {"model": "gpt", "recompute": "full", "pipeline": 2, "microbatches": 4, "schedule": schedule}
    for schedule in ("pipedream", "pipedream-2bw")
]

EVERY = CASES + TENSOR + CONTEXT + EXPERT + SHARDED + ASYNCHRONOUS


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def without(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "recompute"}


@pytest.mark.parametrize(
    "keys",
    EVERY,
    ids=name_of,
)
def test_not_a_bit_is_different(run, keys):
    """The same products in the same order, on every rank, for two steps."""
    again, once = run(**keys), run(**without(keys))
    assert again.measurement.losses == once.measurement.losses
    assert len(again.shares) == len(once.shares) == once.program.num_ranks
    for mine, theirs in zip(again.shares, once.shares, strict=True):
        for ours, expected in zip(mine, theirs, strict=True):  # parameters, gradients
            assert ours.keys() == expected.keys()
            assert [key for key in expected if not torch.equal(ours[key], expected[key])] == []


@pytest.mark.parametrize("plan", [{}, {"pipeline": 2, "schedule": "zb-h1"}], ids=name_of)
def test_images_too(workers, plan):
    """Convolutions, whose blocks are their layers."""
    answers = []
    for recompute in ("none", "full"):
        keys = {
            "workload": {"model": "alexnet", "image_size": 63, "classes": 5, "global_batch": 4},
            "parallel": {"microbatches": 2, "recompute": recompute, **plan},
            "run": {"iterations": 2, "warmup": 0},
        }
        answers.append(workers.run(Job(parse(keys)))["measurement"])
    once, again = answers
    assert again["losses"] == once["losses"]
    assert again["parameters_norm"] == once["parameters_norm"]


@pytest.mark.parametrize("keys", CASES, ids=name_of)
def test_it_is_the_training_of_one_process(run, equals_one_process, keys):
    equals_one_process(run(**keys))


def test_tokens_that_are_routed_again_are_counted_once(run):
    for plan in ({"microbatches": 2}, {"expert": 2}):
        keys = {"model": "moe-gpt", "capacity_factor": 0.5, **plan}
        once, again = run(**keys).measurement, run(recompute="full", **keys).measurement
        assert once.moe is not None
        assert again.moe == once.moe


@pytest.mark.parametrize(
    "keys", CASES + TENSOR + CONTEXT + EXPERT + SHARDED + ASYNCHRONOUS, ids=name_of
)
def test_every_tensor_has_the_bytes_the_program_says(run, keys):
    ran = run(**keys)
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
    # Where no gather runs ahead of the backward pass, the order of all changes is certain.
    [keys for keys in CASES if "pipeline" not in keys]
    + [k for k in TENSOR if not {"pipeline", "data"} & k.keys() and k["recompute"] == "full"],
    ids=name_of,
)
def test_peak_memory_is_as_predicted(run, keys):
    ran = run(**keys)
    predicted = predict(ran.experiment).timeline.memory
    assert [m.peak for m in ran.measurement.timeline.memory] == [m.peak for m in predicted]


def kept_by_a_layer(experiment) -> int:
    """Bytes that a transformer layer of gpt keeps of a microbatch.

    Korthikanti et al. 2022, sections 4 and 5, in 16 bits: s·b·h·(34 + 5·a·s/h), without its
    second term if selective, divided by t with tensor and sequence parallelism; 2·s·b·h if
    full. Of theirs 2·s·b·h are dropout masks behind attention and MLP (a byte per value), and
    3·a·s²·b the mask of the softmax and its output once more. They leave out mean and deviation
    of the two norms, values of 32 bits or more.
    """
    w, p = experiment.workload, experiment.parallel
    s, b, h, a, t = w.sequence, experiment.microbatch_size, w.hidden, w.heads, p.tensor
    sixteen_bits = {
        "none": (34 * s * b * h + 5 * a * s * s * b) - (2 * s * b * h + 3 * a * s * s * b),
        "selective": 34 * s * b * h - 2 * s * b * h,
        "full": 2 * s * b * h,
    }[p.recompute]
    statistics = 0 if p.recompute == "full" else 2 * 2 * s * b * max(4, w.dtype_bytes)
    shares = t if p.sequence_parallel else 1
    return (sixteen_bits * w.dtype_bytes // 2 + statistics) // shares


def held_after_forward(timeline) -> int:
    """By rank 0 as its last forward pass ends, above what is resident."""
    forward = timeline.of_kind(lambda kind: kind.op == "F") & (timeline.rank == 0)
    memory, end = timeline.memory[0], timeline.end[forward].max()
    last = int(np.searchsorted(memory.times, end, side="left")) - 1
    return int(memory.nbytes[last] - memory.nbytes[0])


LAYER = {"model": "gpt", "hidden": 16, "heads": 4, "sequence": 24, "iterations": 1}


@pytest.mark.parametrize("plan", [{}, {"tensor": 2, "pipeline": 1, **SHARED}], ids=name_of)
@pytest.mark.parametrize("recompute", ["none", *HOW])
def test_a_layer_keeps_what_korthikanti_et_al_count_without_their_masks(
    run, experiment, recompute, plan
):
    """What one more layer adds to what a rank holds after the forward pass: predicted in 16
    bits, measured in 32 (16-bit norms of a CPU keep 16-bit statistics)."""
    real, predicted = [], []
    for layers in (3, 4):
        keys = {**LAYER, "layers": layers, "recompute": recompute, **plan}
        ran, narrow = run(**keys, dtype="fp32"), experiment(**keys, dtype="bf16")
        real.append(held_after_forward(ran.measurement.timeline))
        predicted.append(held_after_forward(predict(narrow).timeline))
    assert real[1] - real[0] == kept_by_a_layer(ran.experiment)
    assert predicted[1] - predicted[0] == kept_by_a_layer(narrow)


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

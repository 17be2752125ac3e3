"""Every strategy trains the model that one process trains with plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from simulator.strategies.schedules.registry import SCHEDULES, Plan

PIPELINES = [
    {"schedule": "gpipe", "pipeline": 2, "microbatches": 4},
    {"schedule": "gpipe", "model": "mlp", "layers": 5, "pipeline": 3, "microbatches": 2},
    {"schedule": "gpipe", "pipeline": 4, "microbatches": 4},
    {"schedule": "1f1b", "pipeline": 2, "microbatches": 4},
    {"schedule": "1f1b", "pipeline": 2, "microbatches": 1},
    {"schedule": "1f1b", "layers": 5, "pipeline": 3, "microbatches": 5},
    {"schedule": "1f1b", "model": "mlp", "layers": 5, "pipeline": 2, "microbatches": 3},
    {"schedule": "1f1b", "model": "mlp", "layers": 5, "pipeline": 4, "microbatches": 2},
    {"schedule": "1f1b", "pipeline": 4, "microbatches": 6},
    {"schedule": "naive", "pipeline": 2, "microbatches": 2},
    {"schedule": "naive", "model": "mlp", "layers": 6, "pipeline": 3, "microbatches": 4},
    {"schedule": "naive", "pipeline": 4, "microbatches": 2},
]
# Every other synchronous schedule, in all shapes below that it takes.
OTHERS = [name for name in SCHEDULES if name not in ("naive", "gpipe", "1f1b")]
SHAPES = [
    {"virtual_stages": v, **shape}
    for v in (1, 2)
    for shape in (
        {"pipeline": 2, "microbatches": 4, "data": 2, "bucket_mb": 0.003},
        {"pipeline": 4, "microbatches": 8, "model": "mlp", "layers": 9},
    )
] + [
    # Three stages a rank, and microbatches that are no multiple of the ranks.
    {"virtual_stages": 3, "pipeline": 2, "microbatches": 3, "layers": 6},
    {"virtual_stages": 2, "pipeline": 2, "microbatches": 5, "model": "mlp", "layers": 5},
    {"virtual_stages": 1, "pipeline": 4, "microbatches": 7, "model": "mlp", "layers": 5},
]
MORE_PIPELINES = [
    {"schedule": name, **shape}
    for name in OTHERS
    for shape in SHAPES
    if not hasattr(SCHEDULES[name], "updates")
    and not SCHEDULES[name].refusal(
        Plan(shape["pipeline"], shape["microbatches"], shape["virtual_stages"])
    )
]
ACCUMULATION = [{"microbatches": 1}, {"microbatches": 3}, {"model": "mlp", "microbatches": 5}]
# Mixtures of experts: some choices are dropped in each.
EXPERTS = [
    {"model": "moe-gpt", "capacity_factor": 0.8, **plan}
    for plan in (
        {"microbatches": 2},
        {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
        {"pipeline": 2, "microbatches": 4, "schedule": "gpipe", "experts": 3, "top_k": 1},
    )
]
LLAMA = [
    {"model": "llama", "kv_heads": 1, **plan}
    for plan in (
        {"pipeline": 2, "microbatches": 4, "qk_norm": True, "window": 3},
        {"pipeline": 2, "microbatches": 4, "schedule": "gpipe", "recompute": "full"},
    )
]
SPLIT_LLAMA = [
    {"model": "llama", "kv_heads": 1, **plan}
    for plan in (
        {"data": 2, "pipeline": 2, "microbatches": 2, "zero": 1, "optimizer": "adamw"},
        {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2, "data": 2},
    )
]
SPLIT_EXPERTS = [
    {"model": "moe-gpt", "capacity_factor": 0.8, **plan}
    for plan in (
        {"data": 2, "microbatches": 2, "bucket_mb": 0.003},
        {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1", "experts": 6, "top_k": 3},
        {"pipeline": 2, "microbatches": 3, "schedule": "zb-v", "virtual_stages": 2, "data": 2},
    )
]
REPLICAS = [
    {"data": 2, "microbatches": 2},
    {"data": 2, "model": "mlp", "bucket_mb": 0.02},
    {"data": 3, "microbatches": 2, "bucket_mb": 1e-6},
    {"data": 3, "model": "mlp", "layers": 5, "bucket_mb": 1e-6},
    {"data": 4, "microbatches": 2, "bucket_mb": 0.03},
    {"data": 4, "model": "mlp", "microbatches": 3},
    {"data": 2, "pipeline": 2, "schedule": "gpipe", "microbatches": 3, "bucket_mb": 0.03},
    {"data": 2, "pipeline": 2, "schedule": "1f1b", "microbatches": 2, "bucket_mb": 1e-6},
    {"data": 2, "pipeline": 2, "schedule": "naive", "microbatches": 2},
    {"data": 2, "pipeline": 2, "model": "mlp", "layers": 5, "microbatches": 4},
]

STATEFUL = [
    {"optimizer": optimizer, "iterations": 3, **clip, **plan}
    for optimizer in ("sgd", "momentum", "adam", "adamw")
    for clip in ({}, {"clip_norm": 0.5})
    for plan in (
        {"microbatches": 2},
        {"data": 2, "pipeline": 2, "microbatches": 2, "bucket_mb": 0.003},
        {"pipeline": 2, "schedule": "zb-v", "virtual_stages": 2, "microbatches": 3},
        {"pipeline": 4, "schedule": "zb-h1", "model": "mlp", "layers": 5, "microbatches": 4},
    )
    if ("data" in plan and (clip or optimizer != "sgd")) or (clip and optimizer == "adam")
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize(
    "keys",
    PIPELINES
    + MORE_PIPELINES
    + ACCUMULATION
    + REPLICAS
    + STATEFUL
    + EXPERTS
    + SPLIT_EXPERTS
    + LLAMA
    + SPLIT_LLAMA,
    ids=name_of,
)
def test_gradients_parameters_and_losses_are_those_of_one_process(run, equals_one_process, keys):
    equals_one_process(run(**keys))


SPLIT = """\
0F0,0F1,0I0,0F2,0W0,0I1,0W1,0I2,0W2
1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1W2
"""


@pytest.mark.parametrize(
    "keys", [{}, {"model": "mlp"}, {"data": 2, "bucket_mb": 0.01}], ids=name_of
)
def test_a_split_backward_changes_no_gradient(run, equals_one_process, tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("csv") / "split.csv"
    path.write_text(SPLIT)
    ran = run(schedule=f"csv:{path}", pipeline=2, microbatches=3, **keys)
    assert "0W2" in "".join(i.label for i in ran.program.ranks[0])
    equals_one_process(ran)


IN_ORDER = [
    keys
    for keys in MORE_PIPELINES
    if keys["schedule"] in ("eager-1f1b", "interleaved-1f1b") and "data" not in keys
]


@pytest.mark.parametrize("keys", PIPELINES + IN_ORDER + ACCUMULATION + EXPERTS + LLAMA, ids=name_of)
def test_without_replicas_not_a_bit_is_different(run, reference, keys):
    """The same products and the same order of sums (the backward passes of these schedules
    run in the order of the microbatches, and whole), so nothing may differ at all."""
    ran = run(**keys)
    parameters, gradients, _ = reference(ran.experiment)
    for ours, theirs in ((ran.gradients[0], gradients), (ran.parameters[0], parameters)):
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("keys", [*REPLICAS, SPLIT_EXPERTS[0], SPLIT_EXPERTS[2]], ids=name_of)
def test_replicas_stay_equal_to_the_bit(run, reference, keys):
    ran = run(**keys)
    for replica in range(1, ran.experiment.parallel.data):
        for mine, first in (
            (ran.gradients[replica], ran.gradients[0]),
            (ran.parameters[replica], ran.parameters[0]),
        ):
            assert all(torch.equal(mine[key], first[key]) for key in first)


def test_tiny_buckets_make_many_segments(run):
    """The cases above are what they claim to be."""
    whole = run(**REPLICAS[0]).program
    cut = run(**REPLICAS[2]).program
    for program, count in ((whole, 1), (cut, 10)):  # embedding, 4 × (attention, mlp), head
        reduces = [i.label for i in program.ranks[0] if i.task.op == "ALL_REDUCE"]
        assert len(reduces) == len(set(reduces)) == count


def test_stages_are_equal_and_unequal(run):
    def sizes(keys: dict[str, Any]) -> list[int]:
        program = run(**keys).program
        steps = [i.task.layers for i in program if i.task.op == "STEP"]
        return [last - first for first, last in steps]

    equal = {"schedule": "naive", "model": "mlp", "layers": 6, "pipeline": 3, "microbatches": 4}
    assert sizes(equal) == [2, 2, 3]  # the loss is a layer without parameters
    assert sizes(PIPELINES[6]) == [3, 3]
    assert len(set(sizes(PIPELINES[7]))) > 1


@pytest.mark.parametrize("model", ["gpt", "mlp", "moe-gpt"])
def test_the_strategy_changes_neither_losses_nor_parameters(run, model):
    """Same seed, global batch and microbatch size: the same 4 × 2 samples a step."""
    plans = [
        {"microbatches": 4},
        {"pipeline": 2, "microbatches": 4, "schedule": "1f1b"},
        {"pipeline": 4, "microbatches": 4, "schedule": "gpipe"},
        {"pipeline": 3, "microbatches": 4, "schedule": "naive"},
        {"data": 2, "microbatches": 2, "bucket_mb": 0.01},
        {"data": 4, "microbatches": 1},
        {"data": 2, "pipeline": 2, "microbatches": 2},
    ]
    batch = {"model": model, "global_batch": 8, "iterations": 3}
    first, *others = (run(**batch, **plan).measurement for plan in plans)
    assert len(first.losses) == 3
    assert first.losses[0] != first.losses[2]
    for other in others:
        assert other.losses == pytest.approx(first.losses, rel=1e-12)
        assert other.parameters_norm == pytest.approx(first.parameters_norm, rel=1e-12)


def test_another_seed_is_another_run(run):
    """The equalities above do not hold for just anything."""
    keys = {"pipeline": 2, "microbatches": 4, "schedule": "gpipe"}
    one, other = run(**keys).measurement, run(**keys, seed=1).measurement
    assert one.losses != pytest.approx(other.losses, rel=1e-6)
    assert one.parameters_norm != pytest.approx(other.parameters_norm, rel=1e-9)


def test_a_run_repeats_to_the_bit(run):
    """`warmup` and measured iterations take the same steps, whatever they are called."""
    keys = {"data": 2, "pipeline": 2, "schedule": "1f1b", "microbatches": 2, "bucket_mb": 1e-6}
    one, other = run(**keys), run(**keys, warmup=1, iterations=1)
    assert one.measurement.losses[1:] == other.measurement.losses
    assert all(torch.equal(v, other.parameters[0][k]) for k, v in one.parameters[0].items())


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05), ("fp16", 0.01)])
def test_narrower_types_compute_the_same_to_their_precision(run, dtype, tolerance):
    """Parameters are drawn in fp32 and rounded, data are bytes: only rounding differs."""
    keys = {"data": 2, "pipeline": 2, "microbatches": 2, "iterations": 1, "bucket_mb": 0.01}
    scale = {"loss_scale": 1.0} if dtype == "fp16" else {}
    exact, rounded = run(**keys), run(**keys, dtype=dtype, **scale)
    assert rounded.measurement.losses == pytest.approx(exact.measurement.losses, rel=tolerance)
    for key, gradient in exact.gradients[0].items():
        error = (rounded.gradients[0][key] - gradient).norm() / gradient.norm()
        assert error < tolerance, key

"""Tensor parallelism against torch's own (DTensor), and its bytes on the wire."""

from __future__ import annotations

import json

import pytest
import torch

from simulator.strategies.lowering import lower

SHAPE = {"layers": 2, "hidden": 16, "heads": 4, "microbatches": 2}
TRAINED = [{**SHAPE, "model": "gpt", "iterations": 3}, {**SHAPE, "model": "mlp", "iterations": 3}]
COUNTED = [
    {**SHAPE, "tensor": 2},
    {**SHAPE, "tensor": 2, "sequence_parallel": True},
    {**SHAPE, "tensor": 2, "model": "mlp"},
    {**SHAPE, "tensor": 2, "model": "mlp", "tensor_style": "column"},
    {**SHAPE, "tensor": 2, "model": "mlp", "tensor_style": "row"},
    {**SHAPE, "context": 2},
    {**SHAPE, "context": 2, "context_style": "ulysses"},
    {**SHAPE, "expert": 2, "model": "moe-gpt"},
]


@pytest.fixture(scope="module")
def in_torch(experiment, run_script, tmp_path_factory):
    """What torch trained, and the bytes that our programs sent."""
    folder = tmp_path_factory.mktemp("torch_tensor")
    job = folder / "job.json"
    dumped = {
        name: [experiment(**keys).model_dump(exclude_unset=True) for keys in cases]
        for name, cases in (("train", TRAINED), ("count", COUNTED))
    }
    job.write_text(json.dumps({"store": str(folder / "store"), "out": str(folder), **dumped}))
    run_script("torch_tensor.py", job)
    return torch.load(folder / "0.pt")


@pytest.mark.parametrize("number", range(len(TRAINED)), ids=["gpt", "mlp"])
def test_parameters_are_those_of_dtensor(run, part_of_whole, in_torch, number):
    expected = {
        (int(name.partition(".")[0]), name.partition(".")[2]): value
        for name, value in in_torch[0][number].items()
    }
    ran = run(**TRAINED[number], tensor=2)
    for rank, (parameters, _) in enumerate(ran.shares):
        theirs = part_of_whole(ran.experiment, rank, expected)
        assert parameters.keys() == theirs.keys()
        for key, value in parameters.items():
            scale = float(theirs[key].abs().max())
            assert float((value - theirs[key]).abs().max()) <= 1e-10 * scale


@pytest.mark.parametrize("number", range(5, 8), ids=["ring", "ulysses", "experts"])
def test_bytes_of_attention_and_experts_on_the_wire(experiment, in_torch, number):
    """Of two microbatches and two layers on two ranks, and the gradients of what is copied."""
    layers, microbatches, both_ways, hidden, width = 2, 2, 2, 16, 8
    here = 4 * 8 // 2 * hidden * width  # activations of a rank's half of the tokens
    slots = 4 * 20 * hidden * width  # ⌈1.25 × 32 tokens × 2 choices ÷ 4⌉ of each expert
    once = {
        5: 1 * 2 * here,  # keys and values, to all but one
        6: 0.5 * (3 + 1) * here,  # half of Q, K and V, and of the output
        7: 0.5 * 2 * slots,  # half of all slots, there and back
    }[number]
    buckets = lower(experiment(**COUNTED[number])).buckets[0]
    gradients = sum(bucket.nbytes for bucket in buckets if len(bucket.replicas) > 1)
    expected = layers * microbatches * both_ways * once + gradients
    assert in_torch[1][number] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("number", range(5))
def test_bytes_on_the_wire_are_the_closed_forms(in_torch, number):
    """All-reduces by a ring send twice (t-1)/t of their bytes, gathers and scatters once; two
    microbatches of four samples of eight tokens, fp64, t = 2."""
    layers, microbatches, tokens, width, hidden, ffn = 2, 2, 32, 8, 16, 64
    whole, inner, row = tokens * hidden * width, tokens * ffn * width, tokens * width
    reduce, half = 1.0, 0.5  # 2(t-1)/t and (t-1)/t
    loss = 3 * row * reduce  # maximum, sum and own logit
    if number == 0:  # and the embedding's, and the head's on the way back
        expected = microbatches * ((4 * layers + 2) * whole * reduce + loss)
    elif number == 1:
        # A gather and a scatter for each all-reduce, and what is gathered again; once a step
        # the gradients of norms, biases and positions.
        copied = (2 * layers + 1) * 2 * hidden + 2 * layers * hidden + 8 * hidden
        pairs = 2 * (4 * layers + 2) + 2 * layers + 1
        expected = microbatches * (pairs * whole * half + loss) + copied * width * reduce
    elif number == 2:  # the batch needs no gradient
        expected = microbatches * (2 * layers - 1) * whole * reduce
    elif number == 3:  # the last block's output is not gathered, its error is reduced
        expected = microbatches * (
            2 * layers * inner * half + 2 * (layers - 1) * whole * half + width * reduce
        )
    else:
        expected = microbatches * (2 * layers * inner + (2 * layers - 1) * whole) * reduce
    assert in_torch[1][number] == pytest.approx(expected, rel=1e-12)

"""Attention in one kernel: the same numbers, fewer bytes kept."""

from __future__ import annotations

import pytest
import torch

from runtime.models.attention import causal_mask, self_attention
from simulator.workloads.describe import describe

TINY = {"layers": 2, "hidden": 16, "heads": 4, "sequence": 12, "dtype": "fp64"}


@pytest.mark.parametrize("causal", [False, True])
def test_output_and_gradient_are_those_of_the_explicit_core(causal):
    torch.manual_seed(0)
    qkv = torch.randn(3, 20, 48, dtype=torch.float64, requires_grad=True)
    mask = causal_mask(20).double() if causal else None
    made = {}
    for form in ("kept", "flash"):
        out = self_attention(qkv, 4, mask, form)
        made[form] = out, *torch.autograd.grad(out.square().sum(), qkv)
    for ours, theirs in zip(made["flash"], made["kept"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "keys",
    [
        {"model": "gpt", "pipeline": 2, "microbatches": 3},
        {"model": "bert", "tensor": 2, "sequence_parallel": True},
        {"model": "moe-gpt", "data": 2, "zero": 3, "recompute": "full"},
    ],
    ids=lambda keys: keys["model"],
)
def test_training_with_it_is_training_without(run, keys):
    """Losses, and of every rank parameters and gradients."""
    without, with_ = (run(**TINY, **keys, attention=how) for how in ("unfused", "flash"))
    assert with_.measurement.losses == pytest.approx(without.measurement.losses, rel=1e-10)
    for theirs, ours in zip(without.shares, with_.shares, strict=True):
        for expected, found in zip(theirs, ours, strict=True):
            assert expected.keys() == found.keys()
            for name, tensor in expected.items():
                error = float((found[name] - tensor).abs().max())
                assert error <= 1e-10 * max(float(tensor.abs().max()), 1.0), name


@pytest.mark.parametrize(("dtype", "wide"), [("fp64", 8), ("fp32", 4), ("bf16", 4)])
def test_a_row_of_scores_is_kept_as_one_number(experiment, dtype, wide):
    """Saved: s² values of each head are not, the log-sum-exp of s rows is."""
    sizes = TINY | {"dtype": dtype, "global_batch": 3}
    plans = [experiment(**sizes, attention=how) for how in ("unfused", "flash")]
    kept, flash = (describe(plan)[1] for plan in plans)
    width = plans[0].workload.dtype_bytes
    rows = 3 * 4 * 12
    assert kept.saved_bytes - flash.saved_bytes == rows * 12 * width - rows * wide

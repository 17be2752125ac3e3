"""Kernels by shape: bounds, order, tiles, launches; products against the FLOPs of the models."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, load
from simulator.cluster.catalogue import load_preset
from simulator.cluster.preset_files import preset_names
from simulator.engine.kernels import Work, attention_seconds, matmul_seconds, times
from simulator.workloads.describe import Layer, describe
from simulator.workloads.layer import Matmul

A100 = load_preset("dgx-a100-80gb").device
DEVICES = [load_preset(name).device for name in preset_names()]
sizes = st.integers(1, 20000)
shapes = st.builds(Matmul, sizes, sizes, sizes, st.integers(1, 64))


def time(matmul: Matmul, device=A100, dtype="bf16") -> float:
    return matmul_seconds(device, dtype, 2, matmul)


@given(shapes, st.sampled_from(DEVICES), st.sampled_from(["fp32", "bf16"]))
def test_no_matmul_is_faster_than_the_peak_or_than_its_operands(matmul, device, dtype) -> None:
    width = 4 if dtype == "fp32" else 2
    took = matmul_seconds(device, dtype, width, matmul)
    assert took >= matmul.flops / device.peak_flops[dtype]
    m, n, k = matmul.m, matmul.n, matmul.k
    assert took >= width * matmul.batch * (m * k + k * n + m * n) / device.memory_bandwidth
    assert took >= device.matmul_s


@given(shapes, st.sampled_from(["m", "n", "batch"]), st.integers(0, 500))
def test_a_larger_matmul_takes_no_less(matmul, side, more) -> None:
    larger = replace(matmul, **{side: getattr(matmul, side) + more})
    assert time(larger) >= time(matmul)


@given(shapes, st.integers(2, 4))
def test_more_of_the_same_shape_takes_no_less(matmul, factor) -> None:
    m, n, k = (factor * size for size in (matmul.m, matmul.n, matmul.k))
    assert time(replace(matmul, m=m, n=n, k=k)) >= time(matmul)


@given(sizes, sizes, sizes)
def test_a_longer_sum_takes_no_less(k, m, n) -> None:
    assert time(Matmul(m, n, k + 1)) >= time(Matmul(m, n, k))


def test_one_tile_more_is_one_wave_more() -> None:
    """108 processors, tiles of 128: 12 × 9 of them are one wave, one row more are two."""
    one, two = Matmul(12 * 128, 9 * 128, 4096), Matmul(12 * 128 + 1, 9 * 128, 4096)
    floor = A100.matmul_s
    assert time(two) - floor == pytest.approx(2 * (time(one) - floor), rel=1e-12)
    wave = 2 * 128 * 128 * 4096 / (312e12 * A100.matmul_efficiency / 108)
    assert time(one) - floor == pytest.approx(wave, rel=1e-12)


def test_a_sum_longer_than_a_processor_takes_alone_is_shared() -> None:
    """A weight's gradient has few tiles and a long sum over tokens."""
    assert time(Matmul(768, 768, 65536)) < 16 * time(Matmul(768, 768, 4096)) / 2


def test_a_square_matmul_is_as_fast_as_published() -> None:
    """TFLOP/s of bf16 on A100, read off a figure (NVIDIA, in ml-engineering's compute/accelerator):
    the wave that 2304 fills and 2560 does not, and the largest."""
    for side, published in ((2048, 196.0), (2304, 243.3), (2560, 229.6), (4096, 260.5)):
        square = Matmul(side, side, side)
        assert square.flops / time(square) / 1e12 == pytest.approx(published, rel=0.08)


def test_tiny_kernels_cost_their_launch() -> None:
    slow = replace(A100, launch_s=5e-4)
    tiny = Work((Matmul(2, 2, 2),), 64.0, 3)
    assert max(times(slow, "bf16", 2, tiny)) == pytest.approx(4 * 5e-4)
    fused = Matmul(8, 8, 4, 2, of_weights=False, fused=True)
    assert max(times(slow, "bf16", 2, Work((fused, fused)))) == pytest.approx(5e-4)  # one kernel
    assert max(times(slow, "bf16", 2, Work())) == 0
    large = Work((Matmul(8192, 8192, 8192),), 64.0, 3)
    assert times(slow, "bf16", 2, large)[0] > times(slow, "bf16", 2, large)[1]


def test_fused_attention_runs_at_its_share_of_the_peak_and_fills_processors() -> None:
    head = Matmul(4096, 4096, 128, 32, of_weights=False, fused=True, share=0.5)
    took = attention_seconds(A100, "bf16", [head, head]) - A100.kernel_s
    assert took == pytest.approx(2 * head.flops / (312e12 * A100.attention_efficiency), rel=1e-12)
    one = replace(head, m=128, n=128, batch=1)  # one block of rows: 1 of 108 processors
    took = attention_seconds(A100, "bf16", [one]) - A100.kernel_s
    assert took == pytest.approx(108 * one.flops / (312e12 * A100.attention_efficiency), rel=1e-12)


def plan(*keys: str) -> Experiment:
    return load(None, ["parallel.pipeline=1", "parallel.microbatches=1", *keys])


def core(attention: str, **sizes: int) -> tuple[Layer, Layer]:
    given = {"layers": 1, "hidden": 64, "heads": 4, "sequence": 32, "global_batch": 3, **sizes}
    keys = [f"workload.{key}={value}" for key, value in given.items()]
    found = describe(plan(f"workload.attention={attention}", "workload.dtype=bf16", *keys))
    return found[1], found[2]


@pytest.mark.parametrize("sequence", [32, 256])
def test_fused_attention_in_closed_form(sequence: int) -> None:
    """Forward half of 4·b·s²·h, backward 2.5 × that (Dao 2023, "FlashAttention-2", section 4.1);
    moved and kept are Q, K, V, the output and a number for every row, none of the s² scores."""
    (flash, mlp), (explicit, same) = (core(how, sequence=sequence) for how in ("flash", "unfused"))
    assert mlp == same
    tokens, h = 3 * sequence, 64
    projections = 2 * tokens * h * 4 * h
    forward = flash.forward_flops - projections
    assert forward == 4 * tokens * sequence * h / 2
    backward = flash.backward_input_flops + flash.recomputed_flops - projections
    assert backward == 2.5 * forward
    assert flash.moved_bytes == (5 + 4) * tokens * h * 2
    assert explicit.moved_bytes - 13 * tokens * h * 2 == 2 * 3 * 4 * sequence**2 * 2
    assert flash.saved_bytes == explicit.saved_bytes - 3 * 4 * sequence * (2 * sequence - 4)
    assert flash.kind != explicit.kind


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["workload.model=mlp"], "workload.attention = 'flash': only for workload.model = 'bert'"),
        (["parallel.context=2"], "workload.attention = 'flash': not for a sequence split"),
        (["parallel.recompute=selective"], "parallel.recompute = 'selective': workload.attention"),
        (
            ["run.device=cuda"],
            "workload.attention = 'flash': the GPU's kernel does not",
        ),
    ],
)
def test_where_fused_attention_is_refused(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        plan("workload.attention=flash", *keys)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_matmul_that_leaves_processors_idle_takes_smaller_tiles() -> None:
    """One tile of 128 would keep one processor of 108 busy: sixteen of 32 share it."""
    one = time(Matmul(128, 128, 4096)) - A100.matmul_s
    whole = 2 * 128 * 128 * 4096 / (312e12 * A100.matmul_efficiency / 108)
    assert one == pytest.approx(whole / 16 / 0.35, rel=1e-12)

"""Times of kernels on a device, from their shapes.

A matrix product is cut into square tiles of its output; the processors compute them in waves,
so that a product with one tile more than processors takes twice as long (NVIDIA, "Matrix
Multiplication Background User's Guide", on tile and wave quantization). Everything else moves
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf

from simulator.cluster.device import Device
from simulator.workloads.layer import Matmul

SPLIT_DEPTH = 4096
"""The longest sum that a processor computes alone. Where tiles do not fill the last wave, others
take a share of a longer one ("split-K", NVIDIA CUTLASS, "Efficient GEMM")."""

TILES = ((1, 1.0), (2, 0.6), (4, 0.35))
"""Divisors of the side of a tile, each with the share of the rate that remains. Libraries take
smaller tiles where large ones leave processors idle. Fitted to square bf16 products of side 256
to 1024 on A100 (NVIDIA, in ml-engineering, compute/accelerator)."""


@dataclass(frozen=True)
class Work:
    """The work of a pass through a layer.

    Attributes:
        matmuls: its matrix products.
        nbytes: bytes that all other kernels read and write together.
        kernels: the number of these others.
    """

    matmuls: tuple[Matmul, ...] = ()
    nbytes: float = 0.0
    kernels: int = 0


def times(device: Device, dtype: str, width: int, work: Work) -> tuple[float, float]:
    """Return the seconds of the kernels one after the other, and those of the host to launch them.

    The host runs ahead of the device, so the longer of the two counts.

    Args:
        device: the device that runs the kernels.
        dtype: the type that products are computed in.
        width: bytes of a value of `dtype`.
        work: the kernels.
    """
    single = [matmul for matmul in work.matmuls if not matmul.fused]
    fused = [matmul for matmul in work.matmuls if matmul.fused]
    total = sum(matmul_seconds(device, dtype, width, matmul) for matmul in single)
    total += work.kernels * device.kernel_s + moving_seconds(device, work.nbytes)
    if fused:
        total += attention_seconds(device, dtype, fused)
    launched = len(single) + work.kernels + bool(fused)
    return total, launched * device.launch_s


def moving_seconds(device: Device, nbytes: float) -> float:
    """Return the time to read and write `nbytes` of the device's memory."""
    return nbytes / (device.memory_bandwidth * device.memory_efficiency)


def matmul_seconds(device: Device, dtype: str, width: int, matmul: Matmul) -> float:
    """Return the time of a matrix product.

    The longer counts: computing whole waves of tiles, or moving the operands through memory.
    """
    m, n, k, batch = matmul.m, matmul.n, matmul.k, matmul.batch
    depth = min(k, SPLIT_DEPTH)
    rate = device.peak_flops[dtype] * device.matmul_efficiency / device.processors
    computing = inf
    for part, share in TILES:
        tile = max(1, device.tile // part)
        tiles = batch * ceil(m / tile) * ceil(n / tile)
        waves = ceil(tiles * (k / depth) / device.processors)
        computing = min(computing, waves * 2.0 * tile * tile * depth / (rate * share))
    moving = width * batch * (m * k + k * n + m * n) / device.memory_bandwidth
    return device.matmul_s + max(computing, moving)


def attention_seconds(device: Device, dtype: str, matmuls: Iterable[Matmul]) -> float:
    """Return the time of a fused attention kernel.

    Blocks of the rows of every head are spread over the processors. They are of unequal length
    where a mask is causal, and fill each other's gaps.
    """
    rate = device.peak_flops[dtype] * device.attention_efficiency
    computing = 0.0
    for matmul in matmuls:
        blocks = matmul.batch * ceil(max(matmul.m, matmul.n) / device.tile)
        computing += matmul.flops / rate * max(1.0, device.processors / blocks)
    return device.kernel_s + computing

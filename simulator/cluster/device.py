"""One accelerator, or one core of a CPU: data-sheet rates and how much of them is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulator.cluster.table_fields import Amount, Count, Rate, Share, Table


@dataclass(frozen=True)
class Device:
    """Data-sheet rates of a device, from which `simulator.engine.kernels` computes durations.

    Attributes:
        memory_bandwidth: bytes/s, of the data sheet; `memory_efficiency` of it is reached by
            element-wise work.
        peak_flops: FLOP/s per dtype, of the data sheet; `matmul_efficiency` of it is reached by
            matrix products that fill all processors, `attention_efficiency` by fused attention.
        processors: streaming multiprocessors, over which the tiles of a product are spread.
        tile: rows, and columns, of the output that one of them computes at a time.
        matmul_s: of a product, besides its tiles: the floor of a small one.
        kernel_s: start and end of any other kernel.
        launch_s: host time to launch a kernel.
    """

    name: str
    kind: str
    memory_bytes: float
    memory_bandwidth: float
    memory_efficiency: float
    matmul_efficiency: float
    attention_efficiency: float
    processors: int
    tile: int
    matmul_s: float
    kernel_s: float
    launch_s: float
    peak_flops: dict[str, float]


class PeakTable(Table):
    """The table ``peak_tflops``: 10¹² FLOP/s of one device, per dtype."""

    fp64: Rate
    fp32: Rate
    bf16: Rate
    fp16: Rate


Generation = Literal["volta", "turing", "ampere", "ada", "hopper", "blackwell"]


class DeviceTable(Table):
    """The table ``[devices.NAME]`` of a cluster file: one kind of device.

    Attributes:
        like: the preset, or its short name, whose device has what is not said here.
        generation: of a GPU; says which constants it has that no data sheet has.
    """

    like: str | None = None
    generation: Generation | None = None
    name: str
    kind: Literal["gpu", "cpu"]
    memory_gib: Rate
    memory_bandwidth_gbyte: Rate
    memory_efficiency: Share
    matmul_efficiency: Share
    attention_efficiency: Share
    processors: Count
    tile: Count
    matmul_us: Amount
    kernel_us: Amount
    launch_us: Amount
    peak_tflops: PeakTable


def device_of(table: DeviceTable) -> Device:
    """Return the device that a table describes, in bytes, seconds and FLOP/s."""
    return Device(
        name=table.name,
        kind=table.kind,
        memory_bytes=table.memory_gib * 2**30,
        memory_bandwidth=table.memory_bandwidth_gbyte * 1e9,
        memory_efficiency=table.memory_efficiency,
        matmul_efficiency=table.matmul_efficiency,
        attention_efficiency=table.attention_efficiency,
        processors=table.processors,
        tile=table.tile,
        matmul_s=table.matmul_us * 1e-6,
        kernel_s=table.kernel_us * 1e-6,
        launch_s=table.launch_us * 1e-6,
        peak_flops={dtype: t * 1e12 for dtype, t in table.peak_tflops.model_dump().items()},
    )

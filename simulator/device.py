"""One accelerator, or one core of a CPU: data-sheet rates and how much of them is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.experiment import ExperimentError

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Microseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Device:
    """What `simulator.kernels` computes with.

    Attributes:
        memory_bandwidth: bytes/s, of the data sheet; `memory_efficiency` of it is reached by
            element-wise work.
        peak_flops: FLOP/s per dtype, of the data sheet; `matmul_efficiency` of it is reached by
            matrix products that fill all processors, `attention_efficiency` by fused attention.
        processors: streaming multiprocessors, over which the tiles of a product are spread.
        tile: rows, and columns, of the output that one of them computes at a time.
        product_s: of a product, besides its tiles: the floor of a small one.
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
    product_s: float
    kernel_s: float
    launch_s: float
    peak_flops: dict[str, float]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    kind: str
    memory_gib: Rate
    memory_bandwidth_gbyte: Rate
    memory_efficiency: Share
    matmul_efficiency: Share
    attention_efficiency: Share
    processors: Count
    tile: Count
    product_us: Microseconds
    kernel_us: Microseconds
    launch_us: Microseconds
    peak_tflops: dict[str, Rate]


def device_from(table: dict[str, Any], preset: str) -> Device:
    """The device of a preset's ``[device]`` table.

    Raises:
        ExperimentError: a key is missing, unknown or of no meaning; one line.
    """
    try:
        given = _Table.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ExperimentError(f"preset {preset}: device.{key}: {first['msg']}") from None
    return Device(
        name=given.name,
        kind=given.kind,
        memory_bytes=given.memory_gib * 2**30,
        memory_bandwidth=given.memory_bandwidth_gbyte * 1e9,
        memory_efficiency=given.memory_efficiency,
        matmul_efficiency=given.matmul_efficiency,
        attention_efficiency=given.attention_efficiency,
        processors=given.processors,
        tile=given.tile,
        product_s=given.product_us * 1e-6,
        kernel_s=given.kernel_us * 1e-6,
        launch_s=given.launch_us * 1e-6,
        peak_flops={dtype: tera * 1e12 for dtype, tera in given.peak_tflops.items()},
    )

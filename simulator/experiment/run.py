"""The keys of ``[run]``: how a program is executed and measured."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.experiment.section import Positive, Section


class Run(Section):
    """Steps, device and limits of a real execution.

    Attributes:
        iterations: how often the program is executed and measured, after `warmup` more.
        horizon: the training steps of the program; an iteration takes them all.
        backend: the library that sends tensors; "auto" is NCCL where every rank has a GPU of its
            own, else gloo.
        host: whether the host of a rank launches work ahead of its device, or waits for the end
            of every instruction; "auto" is the former on GPUs that use NCCL.
        check_memory: refuse a plan that the memory of this host, or of its GPUs, cannot hold.
    """

    TABLE: ClassVar[str] = "run"

    iterations: Positive = 10
    horizon: Positive = 1
    warmup: Annotated[int, Field(ge=0)] = 2
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    host: Literal["auto", "waits", "runs-ahead"] = "auto"
    pace: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    check_memory: bool = True
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0

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
        learning_rate_schedule: how the learning rate changes over training steps: "linear" and
            "cosine" let it fall for `learning_rate_decay` steps, "plateau" lowers it where the
            loss stalls.
        learning_rate_warmup: training steps over which it first rises from 0.
        learning_rate_decay: training steps, after these, over which it falls.
        learning_rate_floor: the share of it that is left in the end; unset, 0.
        learning_rate_scaling: what it is multiplied with: the number of workers that share the
            batch, the square root of that, or 1.
        plateau_period: iterations from one look at the loss to the next; unset, 1.
        plateau_patience: looks without a better loss that are let pass; unset, 10.
        plateau_factor: what it is multiplied with then; unset, 0.1.
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
    learning_rate_schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    learning_rate_warmup: Annotated[int, Field(ge=0)] = 0
    learning_rate_decay: Positive | None = None
    learning_rate_floor: Annotated[float, Field(ge=0, lt=1)] | None = None
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = "none"
    plateau_period: Positive | None = None
    plateau_patience: Annotated[int, Field(ge=0)] | None = None
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    check_memory: bool = True
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0

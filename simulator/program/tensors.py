"""Logical tensors and their names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from simulator.program.batch import Batch
from simulator.program.word import Word


class TensorKind(Word):
    """The kinds of tensors; the value begins the text of their names."""

    ACTIVATION = "act"
    GRADIENT = "grad"
    SAVED = "saved"
    DEFERRED = "deferred"
    STASH = "stash"
    GRADIENTS = "gradients"
    PARAMETERS = "parameters"
    WHOLE_PARAMETERS = "whole parameters"
    SNAPSHOT = "snapshot"
    PUSHED_SUM = "pushed sum"
    WORK = "work"
    NORM = "norm"
    OTHER = "other"


ONE_AT_A_TIME = (TensorKind.STASH, TensorKind.WHOLE_PARAMETERS, TensorKind.SNAPSHOT)
"""Kinds of tensors that may live on from one training step to the next."""


class TensorName(NamedTuple):
    """The name of a tensor; its text form is for people and hashes and is never parsed.

    Attributes:
        kind: what it is.
        boundary: where it is in the model: the boundary of an activation or its gradient, or the
            first layer that it is for; -1: nowhere.
        part: of a gradient, the exchange that adds this part of it; of parameters that are cut
            into parts, which of them; -1: it is all.
        version: of superseded weights.
        label: of a tensor of another kind, what it is called.
    """

    kind: TensorKind
    boundary: int = -1
    part: int = -1
    version: int = -1
    label: str = ""

    @classmethod
    def other(cls, label: str, boundary: int = -1) -> TensorName:
        """Return the name of a tensor of another kind: one a microbatch, or one a step."""
        return cls(TensorKind.OTHER, boundary, label=label)

    @property
    def is_one_at_a_time(self) -> bool:
        """Return whether there is one of it at a time, not one a microbatch of each step."""
        return self.kind in ONE_AT_A_TIME

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return repr(_text(self))


@lru_cache(maxsize=1 << 14)  # hashes of programs have the same names again and again
def _text(name: TensorName) -> str:
    whole = name.kind is TensorKind.WHOLE_PARAMETERS
    text = name.label or (TensorKind.PARAMETERS if whole else name.kind).value
    if name.boundary >= 0:
        text += f":{name.boundary}"
    if name.part >= 0:
        text += f".{name.part}"
    if whole:
        return f"{text}@whole"
    return text if name.version < 0 else f"{text}@{name.version}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A logical tensor that an instruction allocates.

    Attributes:
        name: one of those that the functions of this module make.
        nbytes: its bytes, for one microbatch or for the step.
    """

    name: TensorName
    nbytes: int


TensorKey = tuple[TensorName, Batch]
"""The identity of a tensor on its rank: its name, and the microbatch that it belongs to."""

ALWAYS: Batch = (-1, -1)
"""Stands in the key of a tensor of which there is one at a time, whatever the step."""

NORM = TensorName(TensorKind.NORM)
"""The tensor in which the square of the gradients' norm is summed."""


WORK = TensorName(TensorKind.WORK)
"""The number of the microbatch that a worker gets for the asking."""

WORK_BYTES = 8
"""The bytes of that number."""


def tensor_key(name: TensorName, batch: Batch) -> TensorKey:
    """Return the identity of a tensor on its rank."""
    return (name, ALWAYS) if name.is_one_at_a_time else (name, batch)


@lru_cache(maxsize=1 << 14)
def parameter_tensor(kind: TensorKind, first: int, part: int) -> TensorName:
    """Return the name of parameters that begin at layer `first`, or of their gradients."""
    return TensorName(kind, first, part)


def activation(boundary: int) -> TensorName:
    """Return the name of the tensor that enters layer `boundary`."""
    return TensorName(TensorKind.ACTIVATION, boundary)


def gradient(boundary: int, exchange: int = -1) -> TensorName:
    """Return the name of the gradient with respect to `activation(boundary)`, or a part of it.

    Args:
        boundary: where it is.
        exchange: the exchange that adds this part of it; -1: it is all, or what segments add.
    """
    return TensorName(TensorKind.GRADIENT, boundary, exchange)


def saved_tensor(first: int) -> TensorName:
    """Return the name of what autograd keeps for the segment that starts at layer `first`."""
    return TensorName(TensorKind.SAVED, first)


def deferred_tensor(first: int) -> TensorName:
    """Return the name of what the backward pass for weights still needs."""
    return TensorName(TensorKind.DEFERRED, first)


def snapshot_of(parameters: TensorName) -> TensorName:
    """Return the name of a copy of the parameters of a bucket, as they were at some time."""
    return parameters._replace(kind=TensorKind.SNAPSHOT)


def pushed_sum(parameters: TensorName) -> TensorName:
    """Return the name of the sum and the weight of push-sum whose ratio parameters are."""
    return parameters._replace(kind=TensorKind.PUSHED_SUM)


def stashed(first: int, version: int) -> TensorName:
    """Return the name of superseded weights of a stage that starts at layer `first`."""
    return TensorName(TensorKind.STASH, first, version=version)

"""Logical tensors: what they are called, and which of them belong to a microbatch or to a step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """A logical tensor that an instruction allocates; `nbytes` of it per microbatch."""

    name: str
    nbytes: int


def tensor_key(name: str, microbatch: int) -> tuple[str, int]:
    """Identity of a tensor on its rank: one a microbatch, or one a step (``stash:0@1``)."""
    return (name, -1) if "@" in name else (name, microbatch)


def activation(boundary: int) -> str:
    """The tensor that enters layer `boundary`."""
    return f"act:{boundary}"


def gradient(boundary: int) -> str:
    """The gradient with respect to `activation(boundary)`."""
    return f"grad:{boundary}"


def boundary_of(name: str) -> int:
    """The boundary that a tensor of either kind is at."""
    return int(name.partition(":")[2].partition(".")[0])

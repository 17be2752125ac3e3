"""Logical tensors and their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """A logical tensor that an instruction allocates.

    Attributes:
        name: the name, one of those that the functions of this module make.
        nbytes: its bytes, for one microbatch or for the step.
    """

    name: str
    nbytes: int


def tensor_key(name: str, microbatch: int) -> tuple[str, int]:
    """Return the identity of a tensor on its rank.

    There is one a microbatch, or one a step if the name has an ``@`` (``stash:0@1``).
    """
    return (name, -1) if "@" in name else (name, microbatch)


def activation(boundary: int) -> str:
    """Return the name of the tensor that enters layer `boundary`."""
    return f"act:{boundary}"


def gradient(boundary: int) -> str:
    """Return the name of the gradient with respect to `activation(boundary)`."""
    return f"grad:{boundary}"


def boundary_of(name: str) -> int:
    """Return the boundary that an activation or gradient is at."""
    return int(name.partition(":")[2].partition(".")[0])

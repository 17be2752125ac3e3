"""Logical tensors and their names."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.batch import Batch


@dataclass(frozen=True, slots=True)
class Tensor:
    """A logical tensor that an instruction allocates.

    Attributes:
        name: the name, one of those that the functions of this module make.
        nbytes: its bytes, for one microbatch or for the step.
    """

    name: str
    nbytes: int


TensorKey = tuple[str, Batch]
"""The identity of a tensor on its rank: its name, and the microbatch that it belongs to."""

ALWAYS: Batch = (-1, -1)
"""Stands in the key of a tensor of which there is one at a time, whatever the step."""


def tensor_key(name: str, batch: Batch) -> TensorKey:
    """Return the identity of a tensor on its rank.

    There is one a microbatch of each step, or one at a time if the name has an ``@``
    (``stash:0@1``).
    """
    return (name, ALWAYS) if "@" in name else (name, batch)


def activation(boundary: int) -> str:
    """Return the name of the tensor that enters layer `boundary`."""
    return f"act:{boundary}"


def gradient(boundary: int) -> str:
    """Return the name of the gradient with respect to `activation(boundary)`."""
    return f"grad:{boundary}"


def boundary_of(name: str) -> int:
    """Return the boundary that an activation or gradient is at."""
    return int(name.partition(":")[2].partition(".")[0])

"""An MLP whose blocks are one bucket each."""

from __future__ import annotations

from simulator import Experiment, load

BLOCKS = 4
BLOCK = (64 * 256 + 256 + 256 * 64 + 64) * 4  # bytes of a perceptron
SMALL = [
    "workload.model=mlp",
    f"workload.layers={BLOCKS}",
    "workload.hidden=64",
    "workload.sequence=8",
    "parallel.pipeline=1",
    "parallel.bucket_mb=0.1",  # one block each
]


def small(**parallel: object) -> Experiment:
    return load(None, [*SMALL, *(f"parallel.{key}={value}" for key, value in parallel.items())])

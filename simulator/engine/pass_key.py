"""The name under which a profile keeps the duration of a pass."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.operations import INPUT_BACKWARDS, Op
from simulator.workloads.describe import Layer

UNSHARDED = Parallel()


def pass_key(
    op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel = UNSHARDED
) -> str:
    """Return the name of a segment pass in a profile: equal names, equal work."""
    how: str = workload.dtype
    if op is Op.OPTIMIZER_STEP:
        clips = " clipped" if workload.clip_norm is not None else ""
        how += f" {workload.optimizer}{clips}"
    if op in (Op.OPTIMIZER_STEP, Op.GRADIENT_NORM) and parallel.shards_optimizer:
        whole = "" if parallel.shards_gradients else " of whole gradients"  # which it sets to zero
        how += f" 1/{parallel.shards}{whole if op is Op.OPTIMIZER_STEP else ''}"
    if op in INPUT_BACKWARDS and parallel.shards_gradients:
        how += " into new gradients"
    segment = " + ".join(layer.kind for layer in layers)
    return f"{op.value} {how}: {segment}"

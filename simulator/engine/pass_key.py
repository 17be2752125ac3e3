"""The name under which a profile keeps the duration of a pass."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.operations import INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.workloads.describe import Layer

UNSHARDED = Parallel()


def key_of_task(
    task: Task, op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel
) -> str:
    """Return the name of what a task computes: the pass of its layers, or the work on a bucket.

    Args:
        task: says which layers, or which bucket.
        op: the operation that is asked for, in place of that of the task.
        layers: of the model.
        workload, parallel: see `pass_key`.
    """
    if task.tensor:
        count = task.nbytes // workload.dtype_bytes
        return f"{_how(op, workload)}: {count} parameters"
    return pass_key(op, layers[slice(*task.layers)], workload, parallel)


def pass_key(
    op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel = UNSHARDED
) -> str:
    """Return the name of a segment pass in a profile: equal names, equal work."""
    how = _how(op, workload)
    if op in (Op.OPTIMIZER_STEP, Op.GRADIENT_NORM) and parallel.shards_optimizer:
        whole = "" if parallel.shards_gradients else " of whole gradients"  # which it sets to zero
        how += f" 1/{parallel.shards}{whole if op is Op.OPTIMIZER_STEP else ''}"
    if op in INPUT_BACKWARDS and parallel.shards_gradients:
        how += " into new gradients"
    segment = " + ".join(layer.kind for layer in layers)
    return f"{how}: {segment}"


def _how(op: Op, workload: Workload) -> str:
    """Return the operation, and what its work depends on besides shapes and shards."""
    how = f"{op.value} {workload.dtype}"
    if op is Op.OPTIMIZER_STEP:
        how += f" {workload.optimizer}{' clipped' if workload.clip_norm is not None else ''}"
    return how

"""The key under which a profile keeps the duration of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simulator.engine.layer_work import decodes_parts, mixes_sums
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.codecs.codec import Encoding
from simulator.program.operations import INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.workloads.describe import Layer

UNSHARDED = Parallel()


class PassKey(NamedTuple):
    """A key says what a pass computes: equal keys, equal work.

    Its text is what a profile file calls the pass. Nothing reads it back.

    Attributes:
        op: the operation.
        dtype: of the workload.
        details: what else its work depends on besides shapes, such as the optimizer and shards.
        kinds: those of the layers that it passes, in order; of work on a bucket, none.
        parameters: the number of those of a bucket; None: the key is of a pass of layers.
    """

    op: Op
    dtype: str
    details: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    parameters: int | None = None

    def __str__(self) -> str:
        what = " + ".join(self.kinds)
        if self.parameters is not None:
            what = f"{self.parameters} parameters"
        return f"{' '.join((self.op.value, self.dtype, *self.details))}: {what}"


def key_of_task(
    task: Task, op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel
) -> PassKey:
    """Return the key of what a task computes: the pass of its layers, or the work on a bucket.

    Args:
        task: says which layers, or which bucket.
        op: the operation that is asked for, in place of that of the task.
        layers: of the model.
        workload, parallel: see `pass_key`.
    """
    if task.tensor:
        count = task.nbytes // workload.dtype_bytes
        details = _details(op, workload)
        if op is Op.MIX:
            details = (f"with {len(task.sources)}",)
            details += ("divided",) if mixes_sums(task) else ()
        elif op is Op.OUTER_STEP:
            details = ("momentum",) if task.coefficients[1] else ()
            details += ("mixed in",) if task.sources else ()
        elif task.encoding is not None:
            details = _details_of_encoding(task.encoding, op, task)
        return PassKey(op, workload.dtype, details, parameters=count)
    return pass_key(op, layers[slice(*task.layers)], workload, parallel)


def pass_key(
    op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel = UNSHARDED
) -> PassKey:
    """Return the key of a segment pass in a profile."""
    details = _details(op, workload)
    if op in (Op.OPTIMIZER_STEP, Op.GRADIENT_NORM) and parallel.shards_optimizer:
        details += (f"1/{parallel.shards}",)
        if op is Op.OPTIMIZER_STEP and not parallel.shards_gradients:
            details += ("of whole gradients",)  # which it sets to zero
    if op in INPUT_BACKWARDS and parallel.shards_gradients:
        details += ("into new gradients",)
    return PassKey(op, workload.dtype, details, tuple(layer.kind for layer in layers))


def _details_of_encoding(encoding: Encoding, op: Op, task: Task) -> tuple[str, ...]:
    """Return what the work of coding depends on besides the number of values.

    The sum is made of what so many ranks have sent, or the whole of as many parts.
    """
    ranks = f"{'parts ' if decodes_parts(task) else ''}of {len(task.group)} ranks"
    of_round = (f"round {encoding.round}",) if op is Op.ENCODE else (ranks,)
    fed = ("error feedback",) if encoding.feeds_back else ()
    shapes = ("of " + " ".join("x".join(map(str, s)) for s in encoding.shapes),)
    return (str(encoding.codec), *of_round, *fed, *(shapes if encoding.shapes else ()))


def _details(op: Op, workload: Workload) -> tuple[str, ...]:
    """Return what the work of an operation depends on besides dtype, shapes and shards."""
    if op is not Op.OPTIMIZER_STEP:
        return ()
    return (workload.optimizer, *(("clipped",) if workload.clip_norm is not None else ()))

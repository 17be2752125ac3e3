"""The work of one operation on one layer, as the kernels that do it see it."""

from __future__ import annotations

from math import prod

from simulator.engine.kernels import Work
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.operation_columns import Formula
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import TensorKind
from simulator.workloads.layer import Layer, Matmul

BACKWARD_BYTES = 1.5
"""Bytes that a backward pass moves for one that the forward pass moved. An element-wise operator
reads its input and writes its output; its backward pass reads the input and the output's gradient
and writes the input's: three tensors in place of two."""


def work_of(op: Op, layer: Layer, workload: Workload, parallel: Parallel) -> Work:
    """Return the matrix products, bytes and kernels of an operation on a layer.

    Raises:
        ValueError: the operation is not one that computes.
    """
    if layer.exchange is not None:
        return Work()
    cost = op.row.cost
    if cost is Formula.FORWARD:
        return Work(layer.matmuls, layer.moved_bytes, layer.kernels)
    size = float(layer.parameters * workload.dtype_bytes)
    if Formula.INPUT_GRADIENT in cost:
        matmuls = (*layer.recomputed, *layer.backward_input)
        if Formula.WEIGHT_GRADIENT in cost:
            matmuls += layer.backward_weight
        nbytes = BACKWARD_BYTES * layer.moved_bytes + layer.recomputed_bytes
        new = parallel.shards_gradients and size > 0  # gradients are zeroed for each microbatch
        launched = layer.kernels + layer.recomputed_kernels + new
        return Work(matmuls, nbytes + new * size, launched)
    if cost is Formula.WEIGHT_GRADIENT:
        return Work(layer.backward_weight)
    if not layer.parameters:
        return Work()
    ranks = prod(
        workload.kv_ranks(parallel.tensor) if axis == "kv" else parallel.axis_size(axis)
        for axis in layer.sums_over
    )
    shards = min(parallel.shards, ranks)  # experts have fewer ranks to share them
    mine, part = layer.parameters / shards, size / shards
    if cost is Formula.NORM:
        return Work((), part, 1)
    if cost is not Formula.UPDATE:
        raise ValueError(f"no cost for {op.value}")
    whole = parallel.shards_optimizer and not parallel.shards_gradients
    return work_of_update(mine, size if whole else part, workload)


def work_of_bucket(task: Task, workload: Workload) -> Work:
    """Return the bytes and kernels of a norm, update, mixing, copy or coding of a bucket.

    A replica scales its own parameters and adds those of its neighbours, one after the other. What
    an outer step reads and writes is in `runtime.executor.outer_optimizer`.
    """
    cost, nbytes = task.op.row.cost, task.nbytes
    if cost is Formula.NORM:
        return Work((), nbytes, 1)
    if cost is Formula.MIXING:
        others, divides = len(task.sources), mixes_sums(task)
        return Work((), (2.0 + 3.0 * others + 2.0 * divides) * nbytes, 1 + others + divides)
    if cost is Formula.COPYING:
        return Work((), 2.0 * nbytes, 1)
    if cost is Formula.OUTER_UPDATE:
        has_velocity, mixes = task.coefficients[1] > 0, bool(task.sources)
        moved = (16.0 if has_velocity else 8.0) + 5.0 * mixes
        return Work((), moved * nbytes, (6 if has_velocity else 3) + 2 * mixes)
    if task.encoding is not None:
        values = task.encoding.values(nbytes)
        if cost is Formula.ENCODING:
            work = task.encoding.encoding(values)
        elif decodes_parts(task):
            part = task.encoding.values(nbytes // len(task.group))
            work = task.encoding.decoding_parts(part, len(task.group))
        else:
            work = task.encoding.decoding(values, len(task.group))
        products = tuple(Matmul(*product) for product in work.products)
        return Work(products, work.nbytes, work.kernels)
    return work_of_update(nbytes / workload.dtype_bytes, nbytes, workload)


def decodes_parts(task: Task) -> bool:
    """Tell whether the ranks have encoded parts of one tensor, which are not to be summed."""
    return task.tensor is not None and task.tensor.kind is TensorKind.WHOLE_PARAMETERS


def mixes_sums(task: Task) -> bool:
    """Tell whether what is mixed is divided by its weight afterwards, to give the parameters."""
    return task.tensor is not None and task.tensor.kind is TensorKind.PUSHED_SUM


def work_of_update(parameters: float, zeroed: float, workload: Workload) -> Work:
    """Return the bytes and kernels of an update.

    It reads parameter, gradient and state, writes all of them; the gradient is zeroed. Of master
    weights the fp32 ones are read and written, and the copy is written.

    Args:
        parameters: how many are updated.
        zeroed: bytes of the gradients that are set to zero.
        workload: says their type, and the optimizer.
    """
    size, clips = parameters * workload.dtype_bytes, workload.clip_norm is not None
    weights = size if workload.has_master_weights else 2.0 * size
    moved = weights + (1.0 + 2.0 * clips) * size + zeroed
    return Work((), moved + 2.0 * workload.optimizer_bytes * parameters, 2 + clips)

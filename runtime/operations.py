"""One function per operation of the program language, on real tensors.

Each takes the executor and the instruction. Nothing here knows a strategy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.deferral import Deferred
from runtime.ledger import SavedBytes
from runtime.models import within
from simulator.program import Instruction, Op, tensor_key

if TYPE_CHECKING:
    from runtime.executor import Executor
    from runtime.models import Segment

Graph = tuple[Tensor, object, Deferred | None]
"""Input; what backward starts from (the loss, the output's gradient edge, or None); where
weight gradients are left to, if the backward is split."""


def forward_pass(
    segment: Segment, x: Tensor, target: Tensor, loss_scale: float, split: bool = False
) -> tuple[Tensor, Graph]:
    """Run a segment; returns its detached output and the graph for `backward_pass`.

    `split`: its backward will be split into input and weight parts.
    Only the edge of the graph is kept, not the output itself, so that the output's memory
    is free once it has been sent (as Megatron-LM's deallocate_output_tensor).
    """
    if segment.first > 0:
        x.requires_grad_(True)
    deferred = Deferred() if split else None
    segment.defer_weight_gradients(deferred)
    output = segment(x, target)
    root: object = None
    if output.requires_grad and segment.is_loss:
        root = output * loss_scale
    elif output.requires_grad:
        root = torch.autograd.graph.get_gradient_edge(output)
    return output.detach(), (x, root, deferred)


def backward_pass(graph: Graph, gradient: Tensor | None) -> Tensor | None:
    """Accumulate parameter gradients; returns the gradient of the input, if it has one."""
    x, root, _ = graph
    if root is not None:
        torch.autograd.backward((root,), (gradient,))  # type: ignore[arg-type]
    result, x.grad = x.grad, None
    return result


def forward(executor: Executor, instruction: Instruction) -> None:
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    first, last = task.layers
    segment = executor.segments[task.layers]
    batch, target = executor.batches[microbatch]
    x = executor.tensors[f"act:{first}", microbatch] if first else batch
    split = (task.layers, microbatch) in executor.split
    version = segment.use(task.version)
    known = executor.ledger.saved_bytes.get(first)
    if known is None:  # count once; every microbatch saves the same
        boundary_tensor = [x] if first else []
        with SavedBytes([*boundary_tensor, *segment.parameters(), *segment.buffers()]) as saved:
            output, graph = forward_pass(segment, x, target, executor.loss_scale, split)
        known = executor.ledger.saved_bytes[first] = saved.nbytes
    else:
        output, graph = forward_pass(segment, x, target, executor.loss_scale, split)
    executor.staleness.use(task.stage, microbatch, version)
    executor.graphs[first, microbatch] = graph
    executor.ledger.hold((f"saved:{first}", microbatch), known, begin)
    if segment.is_loss:
        executor.losses.append(output)
    else:
        executor.put(f"act:{last}", microbatch, output, begin)


def backward(executor: Executor, instruction: Instruction) -> None:
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    first, last = task.layers
    incoming = executor.tensors.get((f"grad:{last}", microbatch))
    gradient = backward_pass(executor.graphs.pop((first, microbatch)), incoming)
    if first:
        if gradient is None:
            raise RuntimeError(f"layer {first} has no gradient for its input")
        executor.put(f"grad:{first}", microbatch, gradient, begin)
    if task.op is Op.BACKWARD:
        executor.staleness.contribute(task.stage, microbatch)


def backward_input(executor: Executor, instruction: Instruction) -> None:
    first, _ = instruction.task.layers
    key, begin = (first, instruction.microbatch), time.perf_counter()
    x, _, deferred = executor.graphs[key]
    backward(executor, instruction)
    if deferred is not None:
        executor.deferred[key] = deferred
        nbytes = deferred.nbytes(excluding=x if first else None)
        executor.ledger.hold((f"deferred:{first}", instruction.microbatch), nbytes, begin)


def backward_weight(executor: Executor, instruction: Instruction) -> None:
    executor.deferred.pop((instruction.task.layers[0], instruction.microbatch)).run()
    executor.staleness.contribute(instruction.task.stage, instruction.microbatch)


def send(executor: Executor, instruction: Instruction) -> None:
    task = instruction.task
    tensor = executor.tensors[task.tensor, instruction.microbatch]
    dist.send(
        tensor.contiguous(),
        task.peer,
        group=executor.groups.message(executor.rank, task.peer),
        tag=tag(instruction),
    )


def receive(executor: Executor, instruction: Instruction) -> None:
    task, begin = instruction.task, time.perf_counter()
    tensor = executor.empty(task)
    executor.put(task.tensor, instruction.microbatch, tensor, begin)
    dist.recv(
        tensor,
        task.peer,
        group=executor.groups.message(task.peer, executor.rank),
        tag=tag(instruction),
    )


def all_reduce(executor: Executor, instruction: Instruction) -> None:
    task = instruction.task
    group = executor.groups.collective(task.stream, task.group)
    dist.all_reduce(executor.buffers[task.tensor], group=group)


def gradient_norm(executor: Executor, instruction: Instruction) -> None:
    """Add the squares of a stage's gradients to those of the model."""
    for segment in within(executor.segments, instruction.task.layers):
        executor.buffers["norm"] += segment.gradients_square()


def clip_factor(executor: Executor) -> float:
    """What gradients are multiplied with, as `torch.nn.utils.clip_grad_norm_` does."""
    limit = executor.experiment.workload.clip_norm
    if limit is None:
        return 1.0
    return min(1.0, limit / (float(executor.buffers["norm"].sqrt()) + 1e-6))


def optimizer_step(executor: Executor, instruction: Instruction) -> None:
    task, begin = instruction.task, time.perf_counter()
    keep_old, factor = bool(task.allocates), clip_factor(executor)
    segments = within(executor.segments, task.layers)
    for segment in segments:
        if factor < 1.0:
            segment.gradients_flat *= factor
        if executor.keep_gradients:
            key = (segment.first, segment.last)
            executor.last_gradients[key] = segment.gradients_flat.clone()
        executor.staleness.update(task.stage, segment.newest)
        segment.update(executor.experiment.run.learning_rate, keep_old)
    for tensor in task.allocates:
        nbytes = sum(segment.version_bytes(task.version) for segment in segments)
        executor.ledger.hold(tensor_key(tensor.name, instruction.microbatch), nbytes, begin)


def tag(instruction: Instruction) -> int:
    """The same on both sides and different for all messages of a step between two ranks."""
    kind, _, boundary_index = instruction.task.tensor.partition(":")
    number = 2 * int(boundary_index) + (kind == "grad")
    return number * 65536 + instruction.microbatch % 65536


OPERATIONS: dict[Op, Callable[[Executor, Instruction], None]] = {
    Op.FORWARD: forward,
    Op.BACKWARD: backward,
    Op.BACKWARD_INPUT: backward_input,
    Op.BACKWARD_WEIGHT: backward_weight,
    Op.SEND: send,
    Op.RECV: receive,
    Op.ALL_REDUCE: all_reduce,
    Op.GRADIENT_NORM: gradient_norm,
    Op.OPTIMIZER_STEP: optimizer_step,
}

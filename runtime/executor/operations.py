"""One function per operation of the program language, on real tensors.

Each takes the executor and the instruction. Nothing here knows a strategy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runtime.executor.buckets import bucket_collective, collecting
from runtime.executor.ledger import SavedBytes, refetched
from runtime.models.deferral import Deferred
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.task import Task
from simulator.program.tensors import activation, boundary_of, gradient, tensor_key

if TYPE_CHECKING:
    from runtime.executor.executor import Executor
    from runtime.models.segment import Segment

Again = Callable[[int], Tensor]
"""Where a tensor is found that was gathered again, by boundary."""


class Entry:
    """Where the graph of a segment begins at one of its inputs: collects the gradient there.

    A leaf tensor would stay in memory as long as the graph does, whether the backward pass
    needs its values or not.
    """

    def __init__(self) -> None:
        self.gradient: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        apply: Callable[..., Tensor] = _Entered.apply
        return apply(torch.empty(0, requires_grad=True), x, self)


class _Entered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaf: Tensor, x: Tensor, entry: Entry) -> Tensor:
        ctx.entry = entry
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        entry, (gradient,) = ctx.entry, gradients
        if entry.gradient is None:
            entry.gradient = gradient
        else:
            entry.gradient += gradient
        return None, None, None


@dataclass
class Graph:
    """What a backward pass starts from.

    Attributes:
        entries: of its inputs, by boundary.
        roots: the loss, or the place of each output in the graph, by boundary.
        deferred: where weight gradients are left to, if the backward pass is split.
    """

    entries: dict[int, Entry]
    roots: dict[int, Any]
    deferred: Deferred | None


def forward_pass(
    segment: Segment,
    tensors: dict[int, Tensor],
    target: Tensor,
    loss_scale: float,
    split: bool = False,
    again: Again | None = None,
) -> tuple[dict[int, Tensor], Graph]:
    """Run a segment; returns its detached outputs and the graph for `backward_pass`.

    Only the edges of the graph are kept, not the outputs themselves, so that an output's
    memory is free once it has been sent (as Megatron-LM's deallocate_output_tensor).

    Args:
        tensors: by boundary: the inputs of `segment`, and the batch at 0.
        split: its backward will be split into input and weight parts.
        again: where the backward pass finds the inputs that are gathered again.
    """
    entries = {boundary: Entry() for boundary in segment.differentiable}
    entered = {boundary: entry(tensors[boundary]) for boundary, entry in entries.items()}
    deferred = Deferred() if split else None
    segment.defer_weight_gradients(deferred)
    with refetched({b: tensors[b] for b in segment.again}, again):
        outputs = segment({**tensors, **entered}, target)
    roots: dict[int, Any] = {}
    for boundary, output in outputs.items():
        if output.requires_grad and segment.is_loss:
            roots[boundary] = output * loss_scale
        elif output.requires_grad:
            roots[boundary] = torch.autograd.graph.get_gradient_edge(output)
    detached = {boundary: output.detach().contiguous() for boundary, output in outputs.items()}
    return detached, Graph(entries, roots, deferred)


@torch.no_grad()
def pass_without_graph(
    segment: Segment, tensors: dict[int, Tensor], target: Tensor
) -> dict[int, Tensor]:
    """Run a segment and keep nothing; returns its outputs."""
    segment.defer_weight_gradients(None)
    outputs: dict[int, Tensor] = segment(tensors, target)
    return {boundary: output.contiguous() for boundary, output in outputs.items()}


def keeps_graph(task: Task) -> bool:
    """A forward pass keeps what its backward pass needs; else it runs again before that."""
    return any(tensor.name.startswith("saved:") for tensor in task.allocates)


def backward_pass(
    graph: Graph, gradients: dict[int, Tensor], into: dict[int, Tensor] | None = None
) -> dict[int, Tensor]:
    """Accumulate parameter gradients; returns the gradients of the inputs, each in memory of
    its own.

    Args:
        gradients: of the outputs, by boundary; none for a loss.
        into: gradients of inputs to add to.
    """
    for boundary, entry in graph.entries.items():
        entry.gradient = (into or {}).get(boundary)
    if graph.roots:
        given = [gradients.get(boundary) for boundary in graph.roots]
        torch.autograd.backward(tuple(graph.roots.values()), given)
    results: dict[int, Tensor] = {}
    for boundary, entry in graph.entries.items():
        if entry.gradient is not None:
            result = entry.gradient.contiguous()
            others = [*results.values(), *(graph.deferred.held if graph.deferred else ())]
            if any(result.data_ptr() == other.data_ptr() for other in others):
                result = result.clone()  # a sum hands the same gradient to all its terms
            results[boundary], entry.gradient = result, None
    return results


def forward(executor: Executor, instruction: Instruction) -> None:
    """`F`, and `R`, which runs it again with the same weights and keeps its graph."""
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    first, _ = task.layers
    segment, parameters = executor.segments[task.layers], executor.parameters_of(task.layers)
    batch, target = executor.batches[microbatch]
    split = (task.layers, microbatch) in executor.split
    version = parameters.use(task.version) if parameters else None

    def held(boundary: int) -> Tensor:
        return executor.tensors[executor.flow.activation(boundary), microbatch]

    tensors = {boundary: held(boundary) for boundary in segment.inputs}
    segment.count(task.op is Op.FORWARD)
    given = {0: batch, **tensors}
    if not keeps_graph(task):
        outputs = pass_without_graph(segment, given, target)
    else:
        arguments = (segment, given, target, executor.loss_factor, split, held)
        known = executor.ledger.saved_bytes.get(first)
        if known is None:  # count once; every microbatch saves the same
            known_already = [*tensors.values(), *segment.parameters(), *segment.buffers()]
            with SavedBytes(known_already) as saved:
                outputs, graph = forward_pass(*arguments)
            saved.exclude([] if segment.is_loss else outputs.values())
            known = executor.ledger.saved_bytes[first] = saved.nbytes
        else:
            outputs, graph = forward_pass(*arguments)
        executor.graphs[first, microbatch] = graph
        executor.ledger.hold((f"saved:{first}", microbatch), known, begin)
    if version is not None and task.op is Op.FORWARD:
        executor.staleness.use(task.stage, microbatch, version)
    made = {tensor.name for tensor in task.allocates}
    for boundary, output in outputs.items():
        if segment.is_loss and task.op is Op.FORWARD:
            executor.losses.append(output)
        elif activation(boundary) in made:
            executor.put(activation(boundary), microbatch, output, begin)


def backward(executor: Executor, instruction: Instruction) -> None:
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    graph = executor.graphs.pop((task.layers[0], microbatch))
    gradients = {}
    for boundary in graph.roots:
        names = [name for name in executor.flow.gradients(boundary) if name in task.sources]
        if names:
            gradients[boundary] = executor.add_up(names, microbatch)
    into = {
        boundary: executor.tensors[gradient(boundary), microbatch]
        for boundary in graph.entries
        if (gradient(boundary), microbatch) in executor.tensors
    }
    parameters = executor.parameters_of(task.layers)
    with collecting(parameters, task, microbatch, executor.ledger, begin):
        results = backward_pass(graph, gradients, into)
    for boundary in sorted(graph.entries.keys() - into.keys()):
        if boundary not in results:
            raise RuntimeError(f"boundary {boundary} has no gradient")
        executor.put(gradient(boundary), microbatch, results[boundary], begin)
    if task.op is Op.BACKWARD:
        executor.staleness.contribute(task.stage, microbatch)


def backward_input(executor: Executor, instruction: Instruction) -> None:
    first, _ = instruction.task.layers
    key, begin = (first, instruction.microbatch), time.perf_counter()
    graph = executor.graphs[key]
    backward(executor, instruction)
    if graph.deferred is not None:
        executor.deferred[key] = graph.deferred
        segment = executor.segments[instruction.task.layers]
        named = (*segment.inputs, *segment.outputs)
        names = [executor.flow.activation(boundary) for boundary in named]
        held = [executor.tensors.get((name, instruction.microbatch)) for name in names]
        nbytes = graph.deferred.nbytes(excluding=[x for x in held if x is not None])
        executor.ledger.hold((f"deferred:{first}", instruction.microbatch), nbytes, begin)


def backward_weight(executor: Executor, instruction: Instruction) -> None:
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    work = executor.deferred.pop((task.layers[0], microbatch))
    parameters = executor.parameters_of(task.layers)
    with collecting(parameters, task, microbatch, executor.ledger, begin):
        work.run()
    executor.staleness.contribute(task.stage, microbatch)


def send(executor: Executor, instruction: Instruction) -> None:
    task = instruction.task
    tensor = executor.add_up(task.sources or (task.tensor,), instruction.microbatch)
    executor.groups.send(tensor.contiguous(), executor.rank, task.peer, tag(instruction))


def receive(executor: Executor, instruction: Instruction) -> None:
    task, begin = instruction.task, time.perf_counter()
    tensor = executor.empty(task.tensor, task.nbytes)
    executor.put(task.tensor, instruction.microbatch, tensor, begin)
    executor.groups.receive(tensor, task.peer, executor.rank, tag(instruction))


def collective(executor: Executor, instruction: Instruction) -> None:
    """In place, or into a new tensor: what the task allocates."""
    task, begin = instruction.task, time.perf_counter()
    parameters = executor.bucket(task.tensor)
    if parameters is not None:
        bucket_collective(executor, instruction, parameters)
        return
    if task.tensor in executor.buffers:
        tensor = executor.buffers[task.tensor]
    else:
        tensor = executor.add_up(task.sources, instruction.microbatch).contiguous()
    if task.op is Op.ALL_REDUCE:
        executor.groups.collective(task, tensor, tensor)
        return
    (made,) = task.allocates
    result = executor.empty(made.name, made.nbytes)
    executor.put(made.name, instruction.microbatch, result, begin)
    executor.groups.collective(task, result.view(-1), tensor.view(-1))


def gradient_norm(executor: Executor, instruction: Instruction) -> None:
    """Add the squares of a stage's gradients to those of the model."""
    for parameters in executor.updated_by(instruction.task):
        executor.buffers["norm"] += parameters.gradients_square()


def gradient_factor(executor: Executor) -> float | None:
    """What gradients are multiplied with: the loss scale is taken out, and their norm limited
    as `torch.nn.utils.clip_grad_norm_` does. None: they have overflowed.
    """
    workload, scale = executor.experiment.workload, executor.loss_scale.value
    norm = executor.gradient_norm()
    if not math.isfinite(norm) and executor.loss_scale.dynamic:
        return None
    limit = workload.clip_norm
    return (1.0 if limit is None else min(1.0, limit / (norm + 1e-6))) / scale


def optimizer_step(executor: Executor, instruction: Instruction) -> None:
    task, begin = instruction.task, time.perf_counter()
    updated = executor.updated_by(task)
    if not updated:
        return
    keep_old, factor = bool(task.allocates), gradient_factor(executor)
    for parameters in updated:
        executor.staleness.update(task.stage, parameters.newest)
        gradients = parameters.scaled_gradients(factor or 0.0)
        if executor.keep_gradients:
            executor.last_gradients[parameters.bucket.name] = gradients.clone()
        if factor is None:
            parameters.skip()
            continue
        parameters.update(executor.experiment.run.learning_rate, gradients, keep_old)
    for tensor in task.allocates:
        nbytes = sum(parameters.version_bytes(task.version) for parameters in updated)
        executor.ledger.hold(tensor_key(tensor.name, instruction.microbatch), nbytes, begin)


def tag(instruction: Instruction) -> int:
    """The same on both sides and different for all messages of a step between two ranks."""
    name = instruction.task.tensor
    number = 2 * boundary_of(name) + name.startswith("grad")
    return number * 65536 + instruction.microbatch % 65536


OPERATIONS: dict[Op, Callable[[Executor, Instruction], None]] = {
    Op.FORWARD: forward,
    Op.RECOMPUTE: forward,
    Op.BACKWARD: backward,
    Op.BACKWARD_INPUT: backward_input,
    Op.BACKWARD_WEIGHT: backward_weight,
    Op.SEND: send,
    Op.RECV: receive,
    **dict.fromkeys(COLLECTIVES, collective),
    Op.GRADIENT_NORM: gradient_norm,
    Op.OPTIMIZER_STEP: optimizer_step,
}

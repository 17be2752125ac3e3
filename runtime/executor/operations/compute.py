"""Forward and backward passes, on real tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from runtime.executor.context import RankContext
from runtime.executor.graph import backward_pass, forward_pass, pass_without_graph
from runtime.executor.ledger import SavedBytes
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import (
    TensorKind,
    TensorName,
    activation,
    deferred_tensor,
    gradient,
    saved_tensor,
)


def forward(context: RankContext, instruction: Instruction) -> None:
    """Execute `F`, or `R`, which runs it again with the same weights and keeps its graph."""
    if context.lacks_work(instruction):
        return
    task, batch = instruction.task, instruction.batch
    segment, parameters = context.segments[task.layers], context.parameters_of(task.layers)
    data, target = context.data_of(instruction)
    data = context.received.pop(batch, data)
    if parameters is not None:
        parameters.use(task.version)
    segment.count_experts(task.op is Op.FORWARD)
    names = dict(zip(segment.inputs, task.sources, strict=True))
    given = {b: context.tensors[name, batch] for b, name in names.items()}
    if keeps_graph(task):
        outputs = _keeping_graph(context, instruction, {0: data, **given}, target)
    else:
        outputs = pass_without_graph(segment, {0: data, **given}, target)
    made = {tensor.name for tensor in task.allocates}
    for boundary, output in outputs.items():
        if boundary in segment.losses:
            if task.op is Op.FORWARD:
                context.losses.append((instruction.step, output * segment.losses[boundary]))
        elif activation(boundary) in made:
            context.put(activation(boundary), output, instruction)


def keeps_graph(task: Task) -> bool:
    """Tell whether a forward pass keeps what its backward pass needs; else it runs again."""
    return any(tensor.name.kind is TensorKind.SAVED for tensor in task.allocates)


def _keeping_graph(
    context: RankContext,
    instruction: Instruction,
    given: dict[int, Tensor],
    target: Tensor,
) -> dict[int, Tensor]:
    """Run a segment and keep its graph; returns its outputs by boundary."""
    task, batch = instruction.task, instruction.batch
    segment, saved_bytes = context.segments[task.layers], context.ledger.saved_bytes
    first, split = task.layers[0], (task.layers, batch) in context.split
    names = dict(zip(segment.inputs, task.sources, strict=True))

    def held(boundary: int) -> Tensor:
        return context.tensors[names[boundary], batch]

    scale = context.loss_scale.value
    arguments = (segment, given, target, task.loss_weight, split, held, scale)
    if first in saved_bytes:  # counted once; every microbatch saves the same
        outputs, graph = forward_pass(*arguments)
    else:
        inputs = [given[boundary] for boundary in names]
        with SavedBytes([*inputs, *segment.parameters(), *segment.buffers()]) as saved:
            outputs, graph = forward_pass(*arguments)
        saved.exclude([output for b, output in outputs.items() if b not in segment.losses])
        saved_bytes[first] = saved.nbytes
    context.graphs[first, batch] = graph
    context.ledger.hold((saved_tensor(first), batch), saved_bytes[first], instruction.index)
    return outputs


def backward(context: RankContext, instruction: Instruction) -> None:
    """Execute `B`: gradients of the inputs and, unless the pass is split, of the weights."""
    if context.lacks_work(instruction):
        return
    task, batch = instruction.task, instruction.batch
    graph = context.graphs.pop((task.layers[0], batch))
    outputs = context.names[task.layers].outputs
    parts: dict[int, list[TensorName]] = {}
    for name in task.sources:  # besides these, activations that were gathered again
        if outputs.get(name) in graph.roots:
            parts.setdefault(outputs[name], []).append(name)
    gradients = {b: context.add_up(names, batch) for b, names in parts.items()}
    into = {
        boundary: context.tensors[gradient(boundary), batch]
        for boundary in graph.entries
        if (gradient(boundary), batch) in context.tensors
    }
    with collecting(context, instruction):
        results = backward_pass(graph, gradients, into)
    for boundary in sorted(graph.entries.keys() - into.keys()):
        if boundary not in results:
            raise RuntimeError(f"boundary {boundary} has no gradient")
        context.put(gradient(boundary), results[boundary], instruction)


def backward_input(context: RankContext, instruction: Instruction) -> None:
    """Execute `I`: gradients of the inputs; those of the weights are left to `W`."""
    task, batch = instruction.task, instruction.batch
    first, _ = task.layers
    graph = context.graphs[first, batch]
    backward(context, instruction)
    if graph.deferred is not None:
        context.deferred[first, batch] = graph.deferred
        names = context.names[task.layers].activations.values()
        held = [context.tensors.get((name, batch)) for name in names]
        nbytes = graph.deferred.nbytes(excluding=[x for x in held if x is not None])
        context.ledger.hold((deferred_tensor(first), batch), nbytes, instruction.index)


def backward_weight(context: RankContext, instruction: Instruction) -> None:
    """Execute `W`: the gradients of the weights that `I` has left."""
    work = context.deferred.pop((instruction.task.layers[0], instruction.batch))
    with collecting(context, instruction):
        work.run()


@contextmanager
def collecting(context: RankContext, instruction: Instruction) -> Iterator[None]:
    """Let parameter gradients go where those of this microbatch are, or begin there."""
    task, batch = instruction.task, instruction.batch
    parameters = context.parameters_of(task.layers)
    if parameters is None:
        yield
        return
    for tensor in task.allocates:
        if tensor.name == parameters.bucket.name:
            nbytes = parameters.begin_gradients(batch).nbytes
            drop = partial(parameters.drop_gradients, batch)
            context.ledger.hold((tensor.name, batch), nbytes, instruction.index, drop)
    with parameters.collecting(batch):
        yield

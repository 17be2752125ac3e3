"""Forward and backward passes through one segment, with its inputs and outputs detached.

A segment's graph is cut off from its neighbours': the gradients at its inputs are collected
and handed on as tensors, because the neighbour may be on another rank or run later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.executor.ledger import refetched
from runtime.models.deferral import Deferred
from runtime.models.segment import Segment

Fetch = Callable[[int], Tensor]
"""Returns the tensor at a boundary that was dropped and gathered again."""


class Entry:
    """The begin of a segment's graph at one of its inputs: collects the gradient there.

    A leaf tensor would stay in memory as long as the graph does, whether the backward pass
    needs its values or not.
    """

    def __init__(self) -> None:
        self.gradient: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return a view of `x` whose gradient is added to this entry's."""
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
    """The graph that a forward pass leaves for its backward pass.

    Attributes:
        entries: those of the segment's inputs, by boundary.
        roots: losses, and the edges of other outputs in the autograd graph, by boundary.
        deferred: where weight gradients are left to, if the backward pass is split.
        loss_scale: the gradient with which the way back begins at a loss; None: 1. It is a tensor
            of the device, so that no host has to know it.
    """

    entries: dict[int, Entry]
    roots: dict[int, Any]
    deferred: Deferred | None
    loss_scale: Tensor | None = None

    def begin(self, boundary: int) -> Tensor | None:
        """Return the gradient of a loss."""
        return None if self.loss_scale is None else self.loss_scale.to(self.roots[boundary].dtype)


def forward_pass(
    segment: Segment,
    tensors: dict[int, Tensor],
    target: Tensor,
    loss_weight: float,
    split: bool = False,
    fetch: Fetch | None = None,
    loss_scale: Tensor | None = None,
) -> tuple[dict[int, Tensor], Graph]:
    """Run a segment; returns its detached outputs and the graph for `backward_pass`.

    Only the edges of the graph are kept, not the outputs themselves, so that an output's
    memory is free once it has been sent (as Megatron-LM's deallocate_output_tensor).

    Args:
        segment: the layers to run.
        tensors: by boundary: the inputs of `segment`, and the batch at 0.
        target: what the loss compares with.
        loss_weight: losses are multiplied with this, beside their weights in the model.
        split: its backward will be split into input and weight parts.
        fetch: where the backward pass finds the inputs that are gathered again.
        loss_scale: see `Graph`.
    """
    entries = {boundary: Entry() for boundary in segment.differentiable}
    entered = {boundary: entry(tensors[boundary]) for boundary, entry in entries.items()}
    deferred = Deferred() if split else None
    segment.defer_weight_gradients(deferred)
    with refetched({b: tensors[b] for b in segment.regathered}, fetch):
        outputs = segment({**tensors, **entered}, target)
    roots: dict[int, Any] = {}
    for boundary, output in outputs.items():
        if output.requires_grad and boundary in segment.losses:
            roots[boundary] = output * (loss_weight * segment.losses[boundary])
        elif output.requires_grad:
            roots[boundary] = torch.autograd.graph.get_gradient_edge(output)
    detached = {boundary: output.detach().contiguous() for boundary, output in outputs.items()}
    return detached, Graph(entries, roots, deferred, loss_scale)


@torch.no_grad()
def pass_without_graph(
    segment: Segment, tensors: dict[int, Tensor], target: Tensor
) -> dict[int, Tensor]:
    """Run a segment and keep nothing; returns its outputs by boundary."""
    segment.defer_weight_gradients(None)
    outputs: dict[int, Tensor] = segment(tensors, target)
    return {boundary: output.contiguous() for boundary, output in outputs.items()}


def backward_pass(
    graph: Graph, gradients: dict[int, Tensor], into: dict[int, Tensor] | None = None
) -> dict[int, Tensor]:
    """Accumulate parameter gradients; returns the gradients of the inputs by boundary.

    Each of these has memory of its own.

    Args:
        graph: what the forward pass left.
        gradients: those of the outputs, by boundary; none for a loss.
        into: gradients of inputs to add to.
    """
    for boundary, entry in graph.entries.items():
        entry.gradient = (into or {}).get(boundary)
    if graph.roots:
        given = [gradients[b] if b in gradients else graph.begin(b) for b in graph.roots]
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

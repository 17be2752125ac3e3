"""Tensors pass between segments and exchanges of a model: which, and what they are called.

``act:B`` is the tensor at boundary B, ``grad:B`` its gradient. Both interpreters name
tensors by this file, so that an instruction means the same to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from simulator.program.operations import IN_PLACE
from simulator.program.tensors import TensorName, activation, gradient
from simulator.workloads.describe import Layer

Range = tuple[int, int]


class Flow:
    """The readers of every boundary between `layers`, and what the tensors there are called."""

    def __init__(self, layers: Sequence[Layer]):
        self.layers = layers

    @cached_property
    def readers(self) -> list[list[int]]:
        """The layers that read each boundary, in order."""
        found: list[list[int]] = [[] for _ in range(len(self.layers) + 1)]
        for index, layer in enumerate(self.layers):
            for back in layer.reads:
                found[index - back].append(index)
        return found

    def entry(self, exchange: int) -> int:
        """Return the boundary that an exchange reads."""
        return exchange - self.layers[exchange].reads[0]

    def source(self, boundary: int) -> int:
        """Return the boundary whose tensor is also there: an exchange in place makes none."""
        while boundary:
            exchange = self.layers[boundary - 1].exchange
            if exchange is None or not (exchange.forward is None or exchange.forward in IN_PLACE):
                break
            boundary = self.entry(boundary - 1)
        return boundary

    def activation(self, boundary: int) -> TensorName:
        """Return the name of the tensor at `boundary`."""
        return activation(self.source(boundary))

    def inputs(self, first: int, last: int) -> list[int]:
        """Return the boundaries made before layers [first, last) that these read; not the batch."""
        found = {
            index - back
            for index in range(first, last)
            for back in self.layers[index].reads
            if 0 < index - back <= first
        }
        return sorted(found)

    def outputs(self, first: int, last: int) -> list[int]:
        """Return the boundaries made by layers [first, last) that later ones read."""
        return [
            boundary
            for boundary in range(first + 1, last + 1)
            if any(reader >= last for reader in self.readers[boundary])
        ]

    def crossing(self, cut: int) -> list[int]:
        """Return the boundaries made before layer `cut` that it or later ones read; not the batch.

        That of `cut` itself comes first, as it is needed first on the other side, then earlier
        ones.
        """
        since = max(cut - self._longest, 0)
        return [b for b in range(cut, since, -1) if self.readers[b] and self.readers[b][-1] >= cut]

    @cached_property
    def _longest(self) -> int:
        """One more than the most boundaries back that a layer reads."""
        return 1 + max((back for layer in self.layers for back in layer.reads), default=0)

    def losses(self, first: int, last: int) -> dict[int, float]:
        """Return the boundaries made by layers [first, last) that are losses, with their weights.

        They are those that nobody reads.
        """
        return {
            boundary: self.layers[boundary - 1].loss_weight
            for boundary in range(first + 1, last + 1)
            if not self.readers[boundary]
        }

    def kept(self, boundary: int, first: int, last: int) -> bool:
        """Tell whether a backward pass through layers [first, last) needs the tensor there."""
        return any(
            first <= reader < last and self._keeps(reader, boundary)
            for reader in self.readers[boundary]
        )

    def _keeps(self, reader: int, boundary: int) -> bool:
        layer = self.layers[reader]
        return layer.exchange is None and any(
            keep and reader - back == boundary
            for back, keep in zip(layer.reads, layer.keeps, strict=True)
        )

    def regathered(self, boundary: int) -> bool:
        """Tell whether what is gathered here is dropped, and gathered anew on the way back."""
        how = self.layers[boundary - 1].exchange if boundary else None
        return how is not None and how.regathered

    def differentiable(self, boundary: int) -> bool:
        """Tell whether the tensor at `boundary` has a gradient."""
        return boundary > 0 and self.layers[boundary - 1].differentiable

    def gradients(self, boundary: int, after: int = 0) -> list[TensorName]:
        """Return the parts whose sum is the gradient that layers from `after` on have there.

        There is one of all segments that read the boundary, which accumulate, and one of each
        exchange that does.
        """
        readers = [index for index in self.readers[boundary] if index >= after]
        exchanges = [index for index in readers if self.layers[index].exchange is not None]
        names = [gradient(boundary)] if len(exchanges) < len(readers) else []
        for index in exchanges:
            if self.layers[index].differentiable:
                names += self.returned(index)
        return names

    def returned(self, exchange: int) -> list[TensorName]:
        """Return what an exchange adds to the gradient at the boundary it reads."""
        how = self.layers[exchange].exchange
        assert how is not None
        if how.backward is None:
            return self.gradients(exchange + 1)
        if how.backward in IN_PLACE:
            return self.gradients(exchange + 1)[:1]
        boundary = self.entry(exchange)
        alone = len(self.readers[boundary]) == 1
        return [gradient(boundary, -1 if alone else exchange)]


def saved_bytes(flow: Flow, first: int, last: int) -> int:
    """Return the bytes that a forward pass through layers [first, last) keeps.

    That is what each layer saves, and the tensors between them that a backward pass needs.
    Tensors that enter or leave are not counted: they have names of their own.
    """
    outputs = set(flow.outputs(first, last))
    inner = sum(
        flow.layers[boundary - 1].output_bytes
        for boundary in range(first + 1, last)
        if boundary not in outputs and flow.kept(boundary, first, last)
    )
    return inner + sum(flow.layers[index].saved_bytes for index in range(first, last))


def deferred_bytes(flow: Flow, first: int, last: int) -> int:
    """Return the bytes kept from the backward pass for inputs to the one for weights.

    They are counted as in `saved_bytes`.
    """
    multiplied = {
        index - flow.layers[index].reads[0]
        for index in range(first, last)
        if flow.layers[index].defers_input
    }
    inner = sum(
        flow.layers[boundary - 1].output_bytes
        for boundary in multiplied.difference(flow.outputs(first, last))
        if boundary > first
    )
    return inner + sum(flow.layers[index].deferred_bytes for index in range(first, last))

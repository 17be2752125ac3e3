"""Full recomputation: of every block only the input is kept, and its forward pass runs again,
exchanges included, before its backward pass (Chen et al. 2016, "Training Deep Nets with
Sublinear Memory Cost", section 4; Megatron-LM's "uniform" method with one layer a unit).

A block is what lies between two layers that may start a stage. `F` frees what it makes
inside a block after its last reader there; `R` makes it again, and from then on it lives as
without recomputation. What a later block reads is that block's input and is kept from `F` on.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from simulator.program import Op, Task
from simulator.strategies.flow import IN_PLACE, activation
from simulator.strategies.stage import Stage


class RecomputedStage(Stage):
    """Tasks of a stage whose blocks run forward twice."""

    @cached_property
    def block_of(self) -> list[int]:
        """Per piece the number of its block; no piece is in two."""
        layers, numbers = self.flow.layers, [0]
        for (first, _), (following, _) in zip(self.pieces, self.pieces[1:], strict=False):
            del first
            numbers.append(numbers[-1] + layers[following].starts_block)
        return numbers

    @cached_property
    def remade(self) -> set[int]:
        """Boundaries whose tensors are dropped by `F` and made again by `R`."""
        return set()

    def _pieces_of(self, block: int) -> list[int]:
        return [piece for piece, number in enumerate(self.block_of) if number == block]

    def _piece_that_makes(self, boundary: int) -> int:
        """-1 for what comes from an earlier stage."""
        for piece, (first, last) in enumerate(self.pieces):
            if first < boundary <= last:
                return piece
        return -1

    def _runs_again(self, piece: int) -> bool:
        """Somebody in the block reads the result. Of segments the graph is needed anyway."""
        if piece not in self.exchanges:
            return True
        block = self.block_of[piece]
        readers = self.flow.readers[self.pieces[piece][0] + 1]
        return any(
            first in range(*self.pieces[other]) and self._runs_again(other)
            for other in self._pieces_of(block)
            for first in readers
        )

    def _follow(self, source: int, readers: list[int], keepers: list[int]) -> None:
        maker = self._piece_that_makes(source)
        name, blocks = activation(source), {self.block_of[piece] for piece in readers}
        lowest = min(blocks)
        again = [p for p in readers if self.block_of[p] == lowest and self._runs_again(p)]
        if maker >= 0 and blocks == {self.block_of[maker]}:
            self._free(Op.FORWARD, readers[-1], name)
            if not again:
                return
            self.remade.add(source)
        if keepers:
            segments = [piece for piece in again if piece not in self.exchanges]
            self._free_backwards(name, source, sorted({*segments[:1], *keepers}))
        else:
            self._free(Op.RECOMPUTE, again[-1], name)

    def _compute(self, op: Op, piece: int) -> Task:
        if op is Op.FORWARD:
            task = super()._compute(op, piece)
            return replace(
                task, allocates=tuple(t for t in task.allocates if not _is_saved(t.name))
            )
        if op is not Op.RECOMPUTE:
            return super()._compute(op, piece)
        task = super()._compute(Op.FORWARD, piece)
        made = {activation(source) for source in self.remade}
        return replace(
            task,
            op=op,
            allocates=tuple(t for t in task.allocates if _is_saved(t.name) or t.name in made),
            frees=tuple(self.freed.get((op, piece), ())),
        )

    def recompute(self, piece: int) -> list[Task]:
        """The forward pass of a block again, before the backward pass of its last segment."""
        block = self._pieces_of(self.block_of[piece])
        if any(other > piece and other not in self.exchanges for other in block):
            return []
        tasks = []
        for again in filter(self._runs_again, block):
            if again in self.exchanges:
                task = self._exchange_again(again)
            else:
                task = self.compute(Op.RECOMPUTE, again)
            if task is not None:
                tasks.append(task)
        return tasks

    def _exchange_again(self, piece: int) -> Task | None:
        task = self.exchange(piece, forwards=True)
        if task is None:
            return None
        layer, _ = self.pieces[piece]
        made = self.flow.source(layer + 1)
        assert made in self.remade, "what is summed in place was made by this block"
        assert task.op in IN_PLACE or made == layer + 1
        frees = tuple(self.freed.get((Op.RECOMPUTE, piece), ()))
        make = replace(task, mnemonic=f"{task.op.value}_R", frees=frees)
        return self._once(("AGAIN", piece), lambda: make)


def _is_saved(name: str) -> bool:
    return name.startswith("saved:")

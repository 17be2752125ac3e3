"""Full recomputation: of every block only the input is kept, and its forward pass runs again,
exchanges included, before its backward pass (Chen et al. 2016, "Training Deep Nets with
Sublinear Memory Cost", section 4; Megatron-LM's "uniform" method with one layer a unit).

A block begins at the first layer of a stage and at every other that could start one. `F` frees
what it makes inside a block after its last reader there; `R` makes it again, and from then on
it lives as it does without recomputation. What another block reads is that block's input and
is kept from `F` on.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import accumulate

from simulator.program.operations import FORWARDS, Op
from simulator.program.task import Task
from simulator.program.tensors import activation, boundary_of
from simulator.strategies.stages.stage import Stage


class RecomputedStage(Stage):
    """Tasks of a stage whose blocks run forward twice.

    Attributes:
        remade: boundaries whose tensors `F` drops and `R` makes again.
    """

    @cached_property
    def block_of(self) -> list[int]:
        """Per piece the number of its block."""
        starts = [self.flow.layers[first].starts_block for first, _ in self.pieces]
        return list(accumulate([0, *map(int, starts[1:])]))

    def _runs_again(self, piece: int) -> bool:
        """A segment must, for its graph; an exchange if its block reads the result."""
        if piece not in self.exchanges:
            return True
        readers = self.flow.readers[self.pieces[piece][1]]
        mine = [self.piece_of[reader] for reader in readers if reader in self.piece_of]
        block = self.block_of[piece]
        return any(self.block_of[other] == block and self._runs_again(other) for other in mine)

    def _follow_activations(self) -> None:
        self.remade: set[int] = set()
        super()._follow_activations()

    def _follow(self, source: int, readers: list[int], keepers: list[int]) -> None:
        name, block = activation(source), self.block_of[readers[0]]
        again = [p for p in readers if self.block_of[p] == block and self._runs_again(p)]
        maker = self.piece_of.get(source - 1)
        if maker is not None and self.block_of[maker] == self.block_of[readers[-1]]:
            self._free(Op.FORWARD, self._settled(readers), name)
            if not again:
                return
            self.remade.add(source)
        if keepers:  # not before the first block that reads it, the last to run again, has done so
            segments = [piece for piece in again if piece not in self.exchanges]
            self._free_backwards(name, source, sorted({*segments[:1], *keepers}))
        else:
            self._free(Op.RECOMPUTE, self._settled(again), name)

    def _compute(self, op: Op, piece: int) -> Task:
        if op not in FORWARDS:
            return super()._compute(op, piece)
        task = super()._compute(Op.FORWARD, piece)
        (saved,) = (tensor for tensor in task.allocates if tensor.name.startswith("saved:"))
        outputs = [tensor for tensor in task.allocates if tensor is not saved]
        if op is Op.FORWARD:
            return replace(task, allocates=tuple(outputs))
        inner = [tensor for tensor in outputs if boundary_of(tensor.name) in self.remade]
        frees = tuple(self.freed.get((op, piece), ()))
        return replace(task, op=op, allocates=(saved, *inner), frees=frees)

    def recompute(self, piece: int) -> list[Task]:
        """The forward pass of a block again, before the backward pass of its last segment."""
        block = [p for p, number in enumerate(self.block_of) if number == self.block_of[piece]]
        if any(other > piece and other not in self.exchanges for other in block):
            return []
        return [
            task
            for other in block
            if self._runs_again(other) and (task := self._again(other)) is not None
        ]

    def _again(self, piece: int) -> Task | None:
        if piece not in self.exchanges:
            return self.compute(Op.RECOMPUTE, piece)
        task = self.exchange(piece, forwards=True)
        if task is None:
            return None
        made = self.flow.source(self.pieces[piece][1])
        assert made in self.remade  # summed in place, an input would be summed twice
        frees = tuple(self.freed.get((Op.RECOMPUTE, piece), ()))
        again = replace(task, mnemonic=f"{task.op.value}_R", frees=frees)
        return self._once(("AGAIN", piece), lambda: again)

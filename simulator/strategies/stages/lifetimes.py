"""Activations are held by a stage for as long as it reads them.

An activation lives until its last reader in the forward pass, or until the backward pass of the
first segment that keeps it. Where blocks are recomputed, the forward pass frees what it makes
inside a block after its last reader there; it is made again before the backward pass of the block,
and from then on lives as without recomputation. What another block reads is that block's input and
is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.program.operations import Op
from simulator.program.tensors import TensorName, activation
from simulator.strategies.stages.pieces import Pieces
from simulator.strategies.stages.recompute import Rerun


@dataclass
class Lifetimes:
    """The tasks of a stage in which the activations that are read there are freed.

    Attributes:
        freed: names by pass and piece.
        dropped: names by exchange, freed when it has gathered its result again.
        by_send: names of what nobody here needs once they have been sent.
        remade: boundaries whose tensors the forward pass frees and recomputation makes again.
    """

    freed: dict[tuple[Op, int], list[TensorName]] = field(default_factory=dict)
    dropped: dict[int, list[TensorName]] = field(default_factory=dict)
    by_send: list[TensorName] = field(default_factory=list)
    remade: set[int] = field(default_factory=set)

    def of(self, op: Op, piece: int) -> tuple[TensorName, ...]:
        """Return what pass `op` through a piece frees."""
        return tuple(self.freed.get((op, piece), ()))

    def free(self, op: Op, piece: int, name: TensorName) -> None:
        """Note that pass `op` through a piece frees a tensor."""
        self.freed.setdefault((op, piece), []).append(name)


def lifetimes(pieces: Pieces, sends: bool, rerun: Rerun | None) -> Lifetimes:
    """Return when the activations of a stage are freed.

    Args:
        pieces: the segments and exchanges of the stage.
        sends: its outputs go to another rank.
        rerun: what runs again before the backward pass; None: nothing.
    """
    found = Lifetimes()
    readers, keepers = pieces.users()
    for source in sorted(readers.keys() | keepers.keys()):
        reading, keeping = readers.get(source, []), keepers.get(source, [])
        if rerun is None:
            _follow(found, pieces, source, reading, keeping, sends)
        else:
            _follow_rerun(found, pieces, rerun, source, reading, keeping)
    for boundary in pieces.outputs if sends else ():
        if pieces.flow.source(boundary) not in readers:
            found.by_send.append(pieces.flow.activation(boundary))
    return found


def _follow(
    found: Lifetimes,
    pieces: Pieces,
    source: int,
    readers: list[int],
    keepers: list[int],
    sends: bool,
) -> None:
    """Note where the activation at `source` is freed, if nothing runs again."""
    name = activation(source)
    if not keepers and sends and source in pieces.outputs:
        found.by_send.append(name)
        return
    if not keepers or pieces.flow.regathered(source):
        found.free(Op.FORWARD, pieces.settled(readers), name)
    if keepers:
        _free_backwards(found, pieces, name, source, keepers)


def _follow_rerun(
    found: Lifetimes,
    pieces: Pieces,
    rerun: Rerun,
    source: int,
    readers: list[int],
    keepers: list[int],
) -> None:
    """Note where the activation at `source` is freed, if blocks run again."""
    name, block_of = activation(source), rerun.block_of
    again = [p for p in readers if block_of[p] == block_of[readers[0]] and p in rerun.again]
    maker = pieces.piece_of.get(source - 1)
    if maker is not None and block_of[maker] == block_of[readers[-1]]:
        found.free(Op.FORWARD, pieces.settled(readers), name)
        if not again:
            return
        found.remade.add(source)
    if keepers:  # not before the first block that reads it, the last to run again, has done so
        segments = [piece for piece in again if piece not in pieces.exchanges]
        _free_backwards(found, pieces, name, source, sorted({*segments[:1], *keepers}))
    else:
        found.free(Op.RECOMPUTE, pieces.settled(again), name)


def _free_backwards(
    found: Lifetimes, pieces: Pieces, name: TensorName, source: int, keepers: list[int]
) -> None:
    """Note that a tensor is freed after its last use in the backward pass.

    That is the one of the lowest piece, and where weight gradients are deferred, of the lowest
    that defers those that need it. An exchange uses it to gather it again.
    """
    if keepers[0] in pieces.regathered:
        found.dropped.setdefault(keepers[0], []).append(name)
        return
    found.free(Op.BACKWARD, keepers[0], name)
    deferring = [piece for piece in keepers if pieces.defers(piece, source)]
    if deferring:
        found.free(Op.BACKWARD_WEIGHT, deferring[0], name)
    else:
        found.free(Op.BACKWARD_INPUT, keepers[0], name)

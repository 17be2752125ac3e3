"""The operations of the program language: a table with one row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from simulator.program.operation_columns import Formula, Look, Payload, Side
from simulator.program.word import Word


class Op(Word):
    """An operation, named as in `torch.distributed.pipelining` where that has a name for it."""

    FORWARD = "F"
    RECOMPUTE = "R"
    BACKWARD = "B"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"
    SEND = "SEND"
    RECV = "RECV"
    ACCEPT = "ACCEPT"
    ALL_REDUCE = "ALL_REDUCE"
    ALL_GATHER = "ALL_GATHER"
    REDUCE_SCATTER = "REDUCE_SCATTER"
    REDUCE = "REDUCE"
    BROADCAST = "BROADCAST"
    ALL_TO_ALL = "ALL_TO_ALL"
    SHIFT = "SHIFT"
    SHIFT_BACK = "SHIFT_BACK"
    GRADIENT_NORM = "NORM"
    OPTIMIZER_STEP = "STEP"
    MIX = "MIX"
    SNAPSHOT = "SNAPSHOT"
    OUTER_STEP = "OUTER"
    ENCODE = "ENCODE"
    DECODE = "DECODE"

    @property
    def row(self) -> Operation:
        """Its row of the table."""
        return OPERATIONS[self]


class Operation(NamedTuple):
    """A row of the table: all that is known of an operation without carrying it out.

    How it is carried out on real tensors is in the table of `runtime.executor.operations`.

    Attributes:
        op: the word.
        cost: what it takes.
        look: how charts draw it.
        labels: examples of what it is called in a list.
        docs: what it does, in one line.
        side: the part that a rank takes in it.
        payload: what moves.
        hop: of messages within a group, how many places further round the group they go.
    """

    op: Op
    cost: Formula
    look: Look
    labels: tuple[str, ...]
    docs: str
    side: Side = Side.COMPUTES
    payload: Payload = Payload.NOTHING
    hop: int = 0

    @property
    def halves(self) -> int:
        """The number of halves of an all-reduce that it has: a reduce-scatter, an all-gather."""
        return (Formula.SCATTERING in self.cost) + (Formula.GATHERING in self.cost)


ROWS = (
    Operation(
        Op.FORWARD,
        Formula.FORWARD,
        Look("forward", (0.34, 0.68), coloured=True),
        ("2F0",),
        "forward pass of stage 2 for microbatch 0",
    ),
    Operation(
        Op.BACKWARD,
        Formula.INPUT_GRADIENT | Formula.WEIGHT_GRADIENT,
        Look("backward", (0.05, 0.20), "///", coloured=True),
        ("2B0",),
        "full backward pass",
    ),
    Operation(
        Op.BACKWARD_INPUT,
        Formula.INPUT_GRADIENT,
        Look("backward, input", (0.13, 0.25), "///", coloured=True),
        ("2I0",),
        "backward pass for the inputs only",
    ),
    Operation(
        Op.BACKWARD_WEIGHT,
        Formula.WEIGHT_GRADIENT,
        Look("backward, weights", (0.03, 0.11), "...", coloured=True),
        ("2W0",),
        "backward pass for the weights only",
    ),
    Operation(
        Op.RECOMPUTE,
        Formula.FORWARD,
        Look("forward again", (0.27, 0.40), "\\\\\\", coloured=True),
        ("2R0",),
        "the forward pass again, for a backward pass whose `F` kept nothing",
    ),
    Operation(
        Op.GRADIENT_NORM,
        Formula.NORM,
        Look("gradient norm", (0.08, 0.08), "..."),
        ("0NORM",),
        "square of the norm of a stage's gradients",
    ),
    Operation(
        Op.OPTIMIZER_STEP,
        Formula.UPDATE,
        Look("optimizer step", (0.04, 0.04)),
        ("0STEP",),
        "optimizer step of a stage, which then sets its gradients to zero",
    ),
    Operation(
        Op.MIX,
        Formula.MIXING,
        Look("mix", (0.08, 0.08), "OO"),
        ("0MIX",),
        "replace parameters by a weighted mean of them and of those that other replicas sent",
    ),
    Operation(
        Op.SNAPSHOT,
        Formula.COPYING,
        Look("snapshot", (0.15, 0.15), ".."),
        ("0SNAPSHOT",),
        "copy parameters as they are now, for an average, or for passes, that go on beside changes "
        "of them",
    ),
    Operation(
        Op.OUTER_STEP,
        Formula.OUTER_UPDATE,
        Look("outer step", (0.10, 0.10), "//"),
        ("0OUTER",),
        "step of an outer optimizer, from the parameters before a period towards their average",
    ),
    Operation(
        Op.ENCODE,
        Formula.ENCODING,
        Look("encode", (0.15, 0.15), "\\\\\\"),
        ("0ENCODE",),
        "make what is sent of a bucket's gradients, of the change of its parameters, or of a shard "
        "of them, in a [smaller form](compression.md)",
    ),
    Operation(
        Op.DECODE,
        Formula.DECODING,
        Look("decode", (0.22, 0.22), "///"),
        ("0DECODE",),
        "make the sum of gradients, the mean of parameters, or whole parameters, from what all "
        "ranks have sent",
    ),
    Operation(
        Op.SEND,
        Formula.MESSAGE,
        Look("send", (0.25, 0.25), "////"),
        ("0SEND_F3", "1SEND_B3"),
        "send an activation (`F`) or a gradient (`B`) to a peer",
        Side.SENDS,
        Payload.WHOLE,
    ),
    Operation(
        Op.RECV,
        Formula.MESSAGE,
        Look("receive", (0.50, 0.50), "\\\\\\\\"),
        ("1RECV_F3", "0RECV_B3"),
        "receive it",
        Side.RECEIVES,
        Payload.WHOLE,
    ),
    Operation(
        Op.ACCEPT,
        Formula.MESSAGE,
        Look("accept", (0.35, 0.35), "OO"),
        ("0ACCEPT3",),
        "be the other side of the message of whoever is [served next](#where-arrival-decides)",
        Side.SERVES,
        Payload.WHOLE,
    ),
    Operation(
        Op.ALL_REDUCE,
        Formula.SCATTERING | Formula.GATHERING,
        Look("all-reduce", (0.12, 0.12), "xxxx"),
        ("0REDUCE_GRAD", "0REDUCE_SHARD", "0REDUCE_TIED", "0REDUCE_NORM", "0AVERAGE"),
        "sum gradients over a group of ranks, those of a shard over its replicas, those of tied "
        "weights over both ends of a pipeline, or squares of norms over a model; average "
        "parameters of replicas",
        Side.MEETS,
        Payload.IN_PLACE,
    ),
    Operation(
        Op.REDUCE_SCATTER,
        Formula.SCATTERING,
        Look("reduce-scatter", (0.20, 0.20), "++++"),
        ("0REDUCE_GRAD", "0REDUCE_GRAD3"),
        "sum gradients over a shard set, of which each rank keeps its part: once a step, or of "
        "microbatch 3",
        Side.MEETS,
        Payload.SCATTERED,
    ),
    Operation(
        Op.ALL_GATHER,
        Formula.GATHERING,
        Look("all-gather", (0.40, 0.40), "||||"),
        ("0UNSHARD", "0UNSHARD_F3", "0UNSHARD_B3"),
        "make parameters whole: after an optimizer step on shards, or before the forward or "
        "backward pass of microbatch 3",
        Side.MEETS,
        Payload.GATHERED,
    ),
    Operation(
        Op.REDUCE,
        Formula.CHAINING,
        Look("reduce", (0.16, 0.16), "***"),
        ("0REDUCE_GRAD",),
        "sum gradients of trainers on `root`, the server of their bucket; trainers begin again "
        "from zero",
        Side.MEETS,
        Payload.IN_PLACE,
    ),
    Operation(
        Op.BROADCAST,
        Formula.CHAINING,
        Look("broadcast", (0.45, 0.45), "..."),
        ("0BROADCAST",),
        "send updated parameters from `root`, the server of their bucket, to trainers",
        Side.MEETS,
        Payload.IN_PLACE,
    ),
    Operation(
        Op.ALL_TO_ALL,
        Formula.TRANSPOSING,
        Look("all-to-all", (0.30, 0.30), "ooo"),
        ("0ALL_TO_ALL_F3.1", "0ALL_TO_ALL_B3.1"),
        "exchange equal parts with every rank of a group: the token slots of experts, or their "
        "gradients, on the way there and back",
        Side.MEETS,
        Payload.SWAPPED,
    ),
    Operation(
        Op.SHIFT,
        Formula.MESSAGE,
        Look("shift", (0.30, 0.30), "----"),
        ("0SHIFT_F3.2",),
        "send to the next rank of a group and receive from the one before, between two segments",
        Side.MEETS,
        Payload.SWAPPED,
        hop=1,
    ),
    Operation(
        Op.SHIFT_BACK,
        Formula.MESSAGE,
        Look("shift back", (0.60, 0.60), "----"),
        ("0SHIFT_BACK_B3.2",),
        "the same the other way round",
        Side.MEETS,
        Payload.SWAPPED,
        hop=-1,
    ),
)

OPERATIONS = {row.op: row for row in ROWS}
"""The rows by their word, in the order in which legends and documentation have them."""


def _ops(which: Callable[[Operation], bool]) -> frozenset[Op]:
    return frozenset(row.op for row in ROWS if which(row))


FORWARDS = _ops(lambda row: row.cost is Formula.FORWARD)
INPUT_BACKWARDS = _ops(lambda row: Formula.INPUT_GRADIENT in row.cost)
"""Operations after which the gradients of a segment's inputs are known."""
LAST_BACKWARDS = _ops(lambda row: Formula.WEIGHT_GRADIENT in row.cost)
"""Operations after which the gradients of a segment's parameters are known."""
BACKWARDS = INPUT_BACKWARDS | LAST_BACKWARDS
PASSES = BACKWARDS | {Op.FORWARD}
"""Operations that a schedule puts in order."""
RUNS_OF_PASSES = PASSES | {Op.RECOMPUTE}
"""Operations that run a pass, for the first time or again."""

COLLECTIVES = _ops(lambda row: row.side is Side.MEETS)
MESSAGES = _ops(lambda row: row.side in (Side.SENDS, Side.RECEIVES))
COMMUNICATION = _ops(lambda row: row.side is not Side.COMPUTES)
IN_PLACE = _ops(lambda row: row.payload is Payload.IN_PLACE)
"""Operations whose result takes the place of what was given to them."""

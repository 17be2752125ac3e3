"""Tasks: what instructions do, whatever the microbatch."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.program.arrival import Policy
from simulator.program.codecs.codec import Encoding
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.tensors import Tensor, TensorName


@dataclass(frozen=True, slots=True)
class Task:
    """The part of an instruction that all microbatches of one pass share.

    A collective puts its result into the tensor it allocates. Without one it works in place: this
    rank's part is a slice of the whole tensor.

    A forward pass that does not allocate ``saved:…`` keeps no graph: it runs again
    (`Op.RECOMPUTE`) before its backward pass.

    Attributes:
        op: the operation.
        stage: the (virtual) pipeline stage.
        layers: the half-open range of model layers it works on.
        segment: the piece of the stage; -1: the whole stage.
        mnemonic: the name in labels; empty: that of `op`.
        stream: the queue of its rank in which it takes its turn.
        peer: for a message the other rank; for a local request, which an `ACCEPT` of this rank
            serves, the rank itself.
        group: for a collective the ranks that take part; for an `ACCEPT` those that may be
            served.
        tensor: the tensor that is sent or reduced; both sides of a message name the same. Of an
            optimizer step the parameters of the one bucket that it updates; empty: those of all
            its layers.
        nbytes: the payload of one rank.
        sources: the tensors it reads; parts of a gradient are added into the first of them
            before anything is done with it.
        reduction: the way in which a collective reduces: "sum", "mean" or "max".
        allocates: the tensors it makes, one a microbatch of each step, or one at a time (see
            `tensor_key`).
        frees: the names of tensors that are no longer needed once it has ended.
        version: counts the updates within the step; -1: the current one. A forward pass uses the
            weights of that version, an optimizer step supersedes them; an optimizer step that
            allocates leaves the old weights to passes still to come.
        root: of a reduce the rank that gets the sum, of a broadcast the one that gives.
        queue: the queue in which an `ACCEPT` of the peer serves this message, whenever the policy
            says so; empty: messages meet in order. Of an optimizer step: it does something only
            if the last `ACCEPT` of this queue makes an update due.
        policy: of an `ACCEPT`, the one that chooses among the requests in its queue.
        coefficients: of a `MIX`, the weights of `tensor` and of each of the sources; of an
            `OUTER`, the learning rate, the momentum and, where it reads an average that has been
            made beside passes, the weight that the rank's own parameters keep.
        dtype: of a sum, the type of its values where it is not that of the workload.
        encoding: of an `ENCODE` and a `DECODE`, how they do it; `group` has the ranks that exchange
            what is encoded.
        loss_weight: of a pass that makes losses, the weight of each in the mean that an update
            follows; it is the mean of one rank's share of a microbatch. No part of the hash.
    """

    op: Op
    stage: int
    layers: tuple[int, int] = (0, 0)
    segment: int = -1
    mnemonic: str = ""
    stream: Stream = COMPUTE_STREAM
    peer: int = -1
    group: tuple[int, ...] = ()
    tensor: TensorName | None = None
    nbytes: int = 0
    sources: tuple[TensorName, ...] = ()
    reduction: str = "sum"
    allocates: tuple[Tensor, ...] = ()
    frees: tuple[TensorName, ...] = ()
    version: int = -1
    root: int = field(default=-1, repr=False)  # `ListDigests` writes it, relative to the group
    queue: str = field(default="", repr=False)
    policy: Policy | None = field(default=None, repr=False)
    coefficients: tuple[float, ...] = field(default=(), repr=False)
    dtype: str = field(default="", repr=False)
    encoding: Encoding | None = field(default=None, repr=False)
    loss_weight: float = field(default=1.0, repr=False)

    @property
    def name(self) -> str:
        """The mnemonic, or the name of the operation."""
        return self.mnemonic or self.op.value

    def label(self, microbatch: int, step: int = 0) -> str:
        """Return the short name of this task for a microbatch of a step: see `label_of`."""
        return label_of(self.stage, self.name, microbatch, self.segment, step)


def label_of(stage: int, name: str, microbatch: int, segment: int, step: int = 0) -> str:
    """Return the short name that people read.

    Examples: ``2F0`` (stage 2, forward pass, microbatch 0), ``0SEND_F3``, ``1B2.0`` (segment 0 of
    the stage), ``0REDUCE_GRAD`` (no microbatch), ``s3:2F0`` (of training step 3; those of step 0
    are not marked).
    """
    text = f"{stage}{name}" if microbatch < 0 else f"{stage}{name}{microbatch}"
    text = text if segment < 0 else f"{text}.{segment}"
    return f"s{step}:{text}" if step else text

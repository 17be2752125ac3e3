"""What an instruction does; all microbatches of one pass share one task."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.operations import COMPUTE_STREAM, Op
from simulator.program.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Task:
    """What an instruction does. All microbatches of one pass share one task.

    `layers` is the half-open range of model layers it works on, `stage` the (virtual)
    pipeline stage, `segment` the piece of that stage (-1: the whole stage). `tensor` is
    what is sent or reduced, with `nbytes` the payload of one rank; both sides of a
    message name the same. `sources` are the tensors it reads: parts of a gradient are added
    into the first of them before anything is done with it. A collective puts its result
    into what it allocates, else it works in place: of the whole tensor it gathers, or scatters
    a sum of, this rank's part is in its place. A forward pass that does not allocate
    ``saved:…`` keeps no graph: it runs again (`Op.RECOMPUTE`) before its backward pass. Names
    in `allocates` and `frees` are per microbatch unless they have an ``@`` (see `tensor_key`).
    `version` (-1: what is current) counts the updates within the step: a forward pass uses
    those weights, an optimizer step supersedes them; one that allocates leaves the old weights
    to passes still to come.
    """

    op: Op
    stage: int
    layers: tuple[int, int] = (0, 0)
    segment: int = -1
    mnemonic: str = ""
    stream: str = COMPUTE_STREAM
    peer: int = -1
    group: tuple[int, ...] = ()
    tensor: str = ""
    nbytes: int = 0
    sources: tuple[str, ...] = ()
    reduction: str = "sum"
    allocates: tuple[Tensor, ...] = ()
    frees: tuple[str, ...] = ()
    version: int = -1

    @property
    def name(self) -> str:
        return self.mnemonic or self.op.value

    def label(self, microbatch: int) -> str:
        return label_of(self.stage, self.name, microbatch, self.segment)


def label_of(stage: int, name: str, microbatch: int, segment: int) -> str:
    """``2F0``, ``0SEND_F3``, ``1B2.0`` (segment 0 of the stage), ``0REDUCE_GRAD``."""
    text = f"{stage}{name}" if microbatch < 0 else f"{stage}{name}{microbatch}"
    return text if segment < 0 else f"{text}.{segment}"

"""The keys of ``[parallel]``: degrees of the device mesh, and how the pipeline is scheduled."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.experiment.mesh import AXES
from simulator.experiment.section import Degree, Positive, Section


class Parallel(Section):
    """Degrees of the device mesh and how the pipeline is scheduled.

    Attributes:
        tensor_style: of mlp: which way its weights are split.
        context_style: how attention gets at the tokens of other ranks.
        sequence_parallel: with tensor > 1, norms and residuals on a share of the tokens.
        memory_limit: of schedule "zb-auto": how many microbatches' activations of its stage
            a rank may hold at once; unset, 2 × pipeline - 1.
        recompute: what is not kept for the backward pass but computed again: nothing, the
            attention core, or all of a block but its input.
        zero: sharded data parallelism: 1 of the optimizer's state, 2 also of gradients, 3 also
            of parameters.
        zero_group: how many ranks share one set of shards; unset, all that replicate.
        prefetch: with zero = 3: parameters are gathered so many segments ahead; unset, 1.
        split: blocks per stage (of virtual stages too, first to last), instead of the split
            that makes the largest stage as small as it can be.
        rank_order: axes of the mesh from the slowest to the fastest varying.
    """

    TABLE: ClassVar[str] = "parallel"

    data: Degree = 1
    pipeline: Degree = 1
    tensor: Degree = 1
    tensor_style: Literal["column", "row", "megatron"] = "megatron"
    context: Degree = 1
    context_style: Literal["ring", "ulysses"] = "ring"
    expert: Degree = 1
    schedule: str = "1f1b"
    virtual_stages: Degree = 1
    microbatches: Degree = 1
    zero: Annotated[int, Field(ge=0, le=3)] = 0
    zero_group: Degree | None = None
    prefetch: Annotated[int, Field(ge=0)] | None = None
    sequence_parallel: bool = False
    recompute: Literal["none", "selective", "full"] = "none"
    bucket_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0
    memory_limit: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    split: Annotated[tuple[Positive, ...], Field(strict=False)] | None = None
    rank_order: Annotated[tuple[str, ...], Field(strict=False)] = AXES

    @property
    def world_size(self) -> int:
        return self.data * self.pipeline * self.tensor * self.context * self.expert

    @property
    def replicas(self) -> int:
        """Ranks that compute with the same weights on other data."""
        return self.data * self.context * self.expert

    @property
    def batch_shares(self) -> int:
        """Among how many the batch is divided: the ranks of `expert` take other data, too."""
        return self.data * self.expert

    @property
    def shards_optimizer(self) -> bool:
        """Return whether replicas share the optimizer's state."""
        return self.zero >= 1

    @property
    def shards_gradients(self) -> bool:
        """Return whether replicas share gradients, too."""
        return self.zero >= 2

    @property
    def shards_parameters(self) -> bool:
        """Return whether replicas share parameters, too."""
        return self.zero >= 3

    @property
    def shards(self) -> int:
        """Ranks that share what one of them would hold."""
        return (self.zero_group or self.replicas) if self.shards_optimizer else 1

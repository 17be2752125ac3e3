"""Buckets: parameters whose gradients are reduced together."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.program.tensors import TensorKind, TensorName, parameter_tensor, pushed_sum


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parameters of one rank whose gradients are reduced and that are updated together.

    Their gradients are sums over `shards` and `replicas`.

    Attributes:
        segments: the layer ranges that use the parameters, ascending.
        replicas: ranks that hold the same part of the bucket, this one included.
        shards: ranks that hold one equal part of the bucket each, in this order; none: every
            rank has all of it.
        zero: what is sharded: 1 the optimizer's state, 2 also gradients, 3 also parameters.
        copies: the number of ranks of one model that hold the same part of the same parameters.
        nbytes: bytes of all parameters of the bucket, padded to equal parts.
        server: the rank that updates it for all replicas; None: each rank that holds it does.
        tied: its weights are the embedding's, of the first layer, and another segment or another
            stage has them, too.
        part: of layers that are cut into parts, which of them a server has; None: all.
    """

    segments: tuple[tuple[int, int], ...]
    replicas: tuple[int, ...] = ()
    shards: tuple[int, ...] = ()
    zero: int = 0
    copies: int = 1
    nbytes: int = 0
    server: int | None = field(default=None, repr=False)  # `ListDigests` writes these
    part: int | None = field(default=None, repr=False)
    tied: bool = field(default=False, repr=False)

    @property
    def name(self) -> TensorName:
        """The name of the tensor that holds its gradients."""
        return self._named(TensorKind.GRADIENTS)

    @property
    def weights(self) -> TensorName:
        """The name of the tensor that holds its parameters."""
        return self._named(TensorKind.PARAMETERS)

    @property
    def whole_weights(self) -> TensorName:
        """The name of the tensor that holds all of its parameters, gathered from shards."""
        return self._named(TensorKind.WHOLE_PARAMETERS)

    @property
    def parameter_names(self) -> tuple[TensorName, ...]:
        """The names of all tensors that hold its parameters in some form."""
        return self.weights, self.whole_weights, pushed_sum(self.weights)

    def _named(self, kind: TensorKind) -> TensorName:
        part = -1 if self.part is None else self.part
        return parameter_tensor(kind, 0 if self.tied else self.segments[0][0], part)

    def is_updated_by(self, rank: int) -> bool:
        """Return whether a rank that holds it has its optimizer's state and updates it."""
        return self.server in (None, rank)

    @property
    def is_at_both_ends(self) -> bool:
        """Return whether another stage has the same weights."""
        return self.tied and len(self.segments) == 1

    @property
    def shards_optimizer(self) -> bool:
        """Return whether the optimizer's state is sharded."""
        return self.zero >= 1

    @property
    def shards_gradients(self) -> bool:
        """Return whether gradients are sharded, too."""
        return self.zero >= 2

    @property
    def shards_parameters(self) -> bool:
        """Return whether parameters are sharded, too: they are gathered before each use."""
        return self.zero >= 3

    @property
    def part_bytes(self) -> int:
        """The bytes of one shard, or of the whole bucket if it is not sharded."""
        return self.nbytes // max(len(self.shards), 1)

"""The coders of one rank, and the parameters that changes are counted from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from runtime.executor.codecs.coder import ErrorFeedback
from runtime.executor.codecs.table import coder_of
from runtime.executor.outer_optimizer import OuterOptimizer
from runtime.executor.parameters import Parameters
from runtime.executor.rank import Rank
from simulator.program.operations import Op
from simulator.program.tensors import TensorName


class RankCoders:
    """A coder for every bucket that a rank encodes: gradients, changes of parameters, or shards.

    Args:
        rank: whose they are.
        parameters: by the names of their gradients and their own.
        outer: outer optimizers by the parameters that they change.
    """

    def __init__(
        self,
        rank: Rank,
        parameters: Mapping[TensorName, Parameters],
        outer: Mapping[TensorName, OuterOptimizer],
    ) -> None:
        self._outer = outer
        self._coders: dict[TensorName, ErrorFeedback] = {}
        self._references: dict[TensorName, Tensor] = {}
        for task in dict.fromkeys(i.task for i in rank.instructions):
            name = task.tensor
            if task.op is not Op.ENCODE or name is None or name in self._coders:
                continue
            mine = parameters[name]
            is_change = name == mine.bucket.weights
            like = mine.precise if is_change else mine.gradients
            like = mine.shard if name == mine.bucket.whole_weights else like
            self._coders[name] = coder_of(task, like, rank.number, rank.experiment.run.seed)
            if is_change and name not in outer:
                self._references[name] = mine.precise.clone()

    @property
    def nbytes(self) -> int:
        """The bytes of what is kept from step to step."""
        coders = sum(coder.nbytes for coder in self._coders.values())
        return coders + sum(reference.nbytes for reference in self._references.values())

    def __getitem__(self, name: TensorName) -> ErrorFeedback:
        return self._coders[name]

    def reference(self, weights: TensorName) -> Tensor:
        """Return the parameters that all replicas had when they were last equal.

        An outer optimizer has them.
        """
        outer = self._outer.get(weights)
        return self._references[weights] if outer is None else outer.before

    def are_equal(self, weights: TensorName, values: Tensor) -> None:
        """Remember what all replicas have now."""
        if weights in self._references:
            self._references[weights].copy_(values)

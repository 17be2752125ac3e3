"""The parameters of a bucket in flat buffers, so that a collective or an optimizer step is one
operation on one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runtime.data import TORCH_DTYPE
from runtime.models import Segment
from runtime.optimizer import Optimizer
from simulator.experiment import Experiment
from simulator.program import Bucket


class Parameters:
    """Of `segments`, whose modules hold views of the flat buffers.

    Attributes:
        segments: layer range → where its parameters are in the flat buffers, in layer order.
        gradients: of all of them, flat.
        newest: version of the newest weights, counted from the start of a training step.
        copies: how many ranks of one model hold the same parameters.
    """

    def __init__(self, experiment: Experiment, segments: Sequence[Segment], copies: int = 1):
        self._slots = [
            (module, name)
            for segment in segments
            for module in segment.modules()
            for name in dict(module.named_parameters(recurse=False))
        ]
        self.copies = copies
        self.segments: dict[tuple[int, int], slice] = {}
        count = 0
        for segment in segments:
            end = count + sum(p.numel() for p in segment.parameters())
            self.segments[segment.first, segment.last] = slice(count, end)
            count = end
        dtype = TORCH_DTYPE[experiment.workload.dtype]
        device = segments[0].device
        self.gradients = torch.zeros(count, dtype=dtype, device=device)
        flat = torch.empty(count, dtype=dtype, device=device)
        self.newest = self._active = 0
        self.optimizer = Optimizer(experiment.workload.optimizer, flat)
        self._versions = {0: (flat, self._leaves(flat))}
        for (module, name), leaf in zip(self._slots, self._versions[0][1], strict=True):
            leaf.data.copy_(getattr(module, name).data)
        self._install(0)

    @property
    def values(self) -> Tensor:
        """The newest weights, flat."""
        return self._versions[self.newest][0]

    def _leaves(self, flat: Tensor) -> list[nn.Parameter]:
        """Parameters that are views of `flat`, their gradients views of the one buffer."""
        leaves, offset = [], 0
        for module, name in self._slots:
            shape = getattr(module, name).shape
            end = offset + shape.numel()
            leaf = nn.Parameter(flat[offset:end].view(shape))
            leaf.grad = self.gradients[offset:end].view(shape)
            leaves.append(leaf)
            offset = end
        return leaves

    def _install(self, version: int) -> None:
        for (module, name), leaf in zip(self._slots, self._versions[version][1], strict=True):
            module._parameters[name] = leaf
        self._active = version

    def use(self, version: int) -> int:
        """Let coming passes use the weights of `version` (-1: the newest); which it is."""
        version = self.newest if version < 0 else version
        if version != self._active:
            self._install(version)
        return version

    def update(self, learning_rate: float, keep_old: bool = False) -> None:
        """Step the optimizer on the flat buffers; gradients start again from zero.

        With `keep_old` the new weights are new tensors: graphs of passes in flight still
        hold the old ones.
        """
        flat, leaves = self._versions[self.newest]
        if keep_old:
            flat = flat.clone()
            leaves = self._leaves(flat)
        else:
            del self._versions[self.newest]
        self.optimizer.step(flat, self.gradients, learning_rate)
        self.newest += 1
        self._versions[self.newest] = (flat, leaves)
        self.gradients.zero_()

    def gradients_square(self) -> Tensor:
        """This rank's part of the square of the L2 norm of the model's gradients, in fp64."""
        return self.gradients.double().square().sum() / self.copies

    def version_bytes(self, version: int) -> int:
        return self._versions[version][0].nbytes

    def forget(self, version: int) -> None:
        """Drop superseded weights."""
        del self._versions[version]

    def restart(self) -> None:
        """Count versions from 0 again."""
        self._versions = {0: self._versions[self.newest]}
        self.newest = 0
        self._install(0)

    def within(self, layers: tuple[int, int]) -> bool:
        """All of it lies in the layer range."""
        return all(layers[0] <= first and last <= layers[1] for first, last in self.segments)


def parameters_of(
    experiment: Experiment,
    buckets: Sequence[Bucket],
    segments: dict[tuple[int, int], Segment],
) -> dict[str, Parameters]:
    """Flat buffers for every bucket of a rank, by its name."""
    return {
        bucket.name: Parameters(experiment, [segments[s] for s in bucket.segments], bucket.copies)
        for bucket in buckets
    }

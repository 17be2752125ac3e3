"""The torch modules of the workloads, one file a model, layer by layer as described in
`simulator.workloads`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from runtime.data import TORCH_DTYPE
from runtime.deferral import BatchedLinear, Conv2d, Deferred, Linear
from runtime.models import bert, convnet, gpt, mlp, moe_gpt, resnet50, unit
from runtime.optimizer import Optimizer
from simulator.experiment import Experiment
from simulator.workloads import describe

MODELS: dict[str, Callable[[Experiment, int], nn.Module]] = {
    "unit": unit.layer,
    "mlp": mlp.layer,
    "gpt": gpt.layer,
    "moe-gpt": moe_gpt.layer,
    "bert": bert.layer,
    "alexnet": convnet.alexnet,
    "vgg16": convnet.vgg16,
    "resnet50": resnet50.layer,
}


def build_layer(experiment: Experiment, index: int, device: torch.device) -> nn.Module:
    """Layer `index`, initialised from (seed, index) alone: the same in every partition."""
    state = torch.get_rng_state()
    torch.manual_seed(experiment.run.seed * 1_000_003 + index)
    layer = MODELS[experiment.workload.model](experiment, index)
    torch.set_rng_state(state)
    return layer.to(device=device, dtype=TORCH_DTYPE[experiment.workload.dtype])


def boundary(experiment: Experiment, index: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of the tensor that enters layer `index` (index > 0)."""
    layer = describe(experiment)[index - 1]
    count = layer.output_bytes // math.prod(layer.output_shape)
    dtype = TORCH_DTYPE[experiment.workload.dtype]
    return layer.output_shape, dtype if count == dtype.itemsize else torch.float64


class Segment(nn.Module):
    """Consecutive layers [first, last) with their parameters and gradients in two flat
    buffers, so that a collective or an optimizer step is one operation on one tensor.

    Attributes:
        gradients_flat: of all parameters of the segment, in layer order.
        newest: version of the newest weights, counted from the start of a training step.
    """

    def __init__(self, experiment: Experiment, first: int, last: int, device: torch.device):
        super().__init__()
        self.first, self.last = first, last
        self.is_loss = last == len(describe(experiment))
        self.deferred: Deferred | None = None
        self.layers = nn.ModuleList(
            build_layer(experiment, index, device) for index in range(first, last)
        )
        dtype = TORCH_DTYPE[experiment.workload.dtype]
        self._slots = [
            (module, name)
            for module in self.modules()
            for name in dict(module.named_parameters(recurse=False))
        ]
        count = sum(p.numel() for p in self.parameters())
        self.gradients_flat = torch.zeros(count, dtype=dtype, device=device)
        flat = torch.empty(count, dtype=dtype, device=device)
        self.newest = self._active = 0
        self.optimizer = Optimizer(experiment.workload.optimizer, flat)
        self._versions = {0: (flat, self._leaves(flat))}
        for (module, name), leaf in zip(self._slots, self._versions[0][1], strict=True):
            leaf.data.copy_(getattr(module, name).data)
        self._install(0)

    @property
    def parameters_flat(self) -> Tensor:
        """The newest weights."""
        return self._versions[self.newest][0]

    def _leaves(self, flat: Tensor) -> list[nn.Parameter]:
        """Parameters that are views of `flat`, their gradients views of the one buffer."""
        leaves, offset = [], 0
        for module, name in self._slots:
            shape = getattr(module, name).shape
            end = offset + shape.numel()
            leaf = nn.Parameter(flat[offset:end].view(shape))
            leaf.grad = self.gradients_flat[offset:end].view(shape)
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
        self.optimizer.step(flat, self.gradients_flat, learning_rate)
        self.newest += 1
        self._versions[self.newest] = (flat, leaves)
        self.gradients_flat.zero_()

    def gradients_square(self) -> Tensor:
        """The square of the L2 norm of the gradients, in fp64."""
        return self.gradients_flat.double().square().sum()

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

    def defer_weight_gradients(self, into: Deferred | None) -> None:
        """Leave the weight gradients of coming passes to `into` (None: compute them)."""
        self.deferred = into
        for module in self.modules():
            if isinstance(module, Linear | BatchedLinear | Conv2d):
                module.deferred = into

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The output, or for the last segment the loss of the microbatch (a scalar)."""
        for layer in self.layers[:-1] if self.is_loss else self.layers:
            x = layer(x)
        if self.is_loss:
            x = self.layers[-1](x, target)
        return x


def within(segments: dict[tuple[int, int], Segment], layers: tuple[int, int]) -> list[Segment]:
    """Those of `segments` that lie in the layer range."""
    return [s for s in segments.values() if layers[0] <= s.first and s.last <= layers[1]]

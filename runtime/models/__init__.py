"""The torch modules of the workloads, one file a model, layer by layer as described in
`simulator.workloads`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from runtime.data import TORCH_DTYPE
from runtime.deferral import Deferred, Linear
from runtime.models import gpt, mlp, unit
from simulator.experiment import Experiment
from simulator.workloads import describe

MODELS: dict[str, Callable[[Experiment, int], nn.Module]] = {
    "unit": unit.layer,
    "mlp": mlp.layer,
    "gpt": gpt.layer,
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
        parameters_flat, gradients_flat: all parameters of the segment, in layer order.
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
        count = sum(p.numel() for p in self.parameters())
        self.parameters_flat = torch.empty(count, dtype=dtype, device=device)
        self.gradients_flat = torch.zeros(count, dtype=dtype, device=device)
        for parameter, values, gradient in self._views():
            values.copy_(parameter.data)
            parameter.data = values
            parameter.grad = gradient

    def _views(self) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
        offset = 0
        for parameter in self.parameters():
            end = offset + parameter.numel()
            values, gradient = (
                flat[offset:end].view(parameter.shape)
                for flat in (self.parameters_flat, self.gradients_flat)
            )
            yield parameter, values, gradient
            offset = end

    def defer_weight_gradients(self, into: Deferred | None) -> None:
        """Leave the weight gradients of coming passes to `into` (None: compute them)."""
        self.deferred = into
        for module in self.modules():
            if isinstance(module, Linear):
                module.deferred = into

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The output, or for the last segment the loss of the microbatch (a scalar)."""
        for layer in self.layers[:-1] if self.is_loss else self.layers:
            x = layer(x)
        if self.is_loss:
            x = self.layers[-1](x, target)
        return x

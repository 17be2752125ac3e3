"""A segment of a model as a torch module, built as `simulator.workloads` describes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from runtime.models import bert, convnet, gpt, llama, mlp, moe_gpt, resnet50, unit
from runtime.models.deferral import BatchedLinear, Conv2d, Deferred, Linear
from runtime.models.dtypes import TORCH_DTYPE
from runtime.models.expert_counter import ExpertCounter
from simulator.experiment.experiment import Experiment
from simulator.strategies.stages.dataflow import Flow
from simulator.workloads.describe import describe

MODELS: dict[str, Callable[[Experiment, int], nn.Module]] = {
    "unit": unit.layer,
    "mlp": mlp.layer,
    "gpt": gpt.layer,
    "llama": llama.layer,
    "moe-gpt": moe_gpt.layer,
    "bert": bert.layer,
    "alexnet": convnet.alexnet,
    "vgg16": convnet.vgg16,
    "resnet50": resnet50.layer,
}
"""Builds layer `index` of a model, whole and freshly initialised."""


Coordinate = Mapping[str, int]
"""A rank's coordinate on each axis of the mesh; 0 on an axis that is not named."""

SHARD_MODULE: dict[str, Callable[[nn.Module, str, Experiment, Coordinate], nn.Module]] = {
    "mlp": mlp.shard_module,
    "gpt": gpt.shard_module,
    "llama": llama.shard_module,
    "moe-gpt": moe_gpt.shard_module,
    "bert": bert.shard_module,
}
"""Cuts what one rank has out of a whole layer."""


def build_layer(
    experiment: Experiment,
    index: int,
    device: torch.device,
    coordinate: Coordinate = MappingProxyType({}),
) -> nn.Module:
    """Build layer `index`, initialised from (seed, index) alone: the same in every partition.

    A part of a layer is cut out of the whole, so that all ranks start from the same model.
    """
    whole, part = describe(experiment)[index].whole
    state = torch.get_rng_state()
    which = index if whole < 0 else whole
    torch.default_generator.manual_seed(experiment.run.seed * 1_000_003 + which)  # of the CPU only
    layer = MODELS[experiment.workload.model](experiment, which)
    torch.set_rng_state(state)
    if part:
        layer = SHARD_MODULE[experiment.workload.model](layer, part, experiment, coordinate)
    return layer.to(device=device, dtype=TORCH_DTYPE[experiment.workload.dtype])


def boundary(experiment: Experiment, index: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Return shape and dtype of the tensor that enters layer `index` (index > 0)."""
    layer = describe(experiment)[index - 1]
    count = layer.output_bytes // math.prod(layer.output_shape)
    dtype = TORCH_DTYPE[experiment.workload.dtype]
    wide = torch.float32 if count == 4 else torch.float64
    return layer.output_shape, dtype if count == dtype.itemsize else wide


class Segment(nn.Module):
    """Consecutive layers [first, last) between which nothing is exchanged with other ranks.

    Attributes:
        inputs: boundaries that it reads and other segments wrote.
        outputs: boundaries that it writes and other segments read.
        losses: boundaries that it writes and nobody reads, with the weight of each loss.
        differentiable: inputs that have a gradient.
        regathered: inputs that are dropped after the forward pass and gathered again.
        expert_counters: of its mixtures of experts, each with the index of its layer.
    """

    def __init__(
        self,
        experiment: Experiment,
        first: int,
        last: int,
        device: torch.device,
        coordinate: Coordinate = MappingProxyType({}),
    ):
        super().__init__()
        self.first, self.last, self.device = first, last, device
        described = describe(experiment)
        flow = Flow(described)
        self.inputs, self.outputs = flow.inputs(first, last), flow.outputs(first, last)
        self.differentiable = {b for b in self.inputs if flow.differentiable(b)}
        self.regathered = {b for b in self.inputs if flow.regathered(b)}
        self._reads = [
            [index - back for back in described[index].reads] for index in range(first, last)
        ]
        used = {b: i for i, read in enumerate(self._reads) for b in read if b not in self.outputs}
        self._done = [[b for b, i in used.items() if i == index] for index in range(last - first)]
        self.losses = flow.losses(first, last)
        self.deferred: Deferred | None = None
        self.layers = nn.ModuleList(
            build_layer(experiment, index, device, coordinate) for index in range(first, last)
        )
        self.expert_counters = [
            (index, module)
            for index, layer in enumerate(self.layers, first)
            for module in layer.modules()
            if isinstance(module, ExpertCounter)
        ]

    def defer_weight_gradients(self, into: Deferred | None) -> None:
        """Leave the weight gradients of later passes to `into`; None: compute them at once."""
        self.deferred = into
        for module in self.modules():
            if isinstance(module, Linear | BatchedLinear | Conv2d):
                module.deferred = into

    def count_experts(self, flag: bool) -> None:
        """Set whether the experts of later passes are counted; a pass that recomputes is not."""
        for _, counter in self.expert_counters:
            counter.is_on = flag

    def forward(self, tensors: dict[int, Tensor], target: Tensor) -> dict[int, Tensor]:
        """Return the tensors at `outputs`, and the losses, which are scalars.

        Args:
            tensors: the `inputs` by boundary, and the batch at boundary 0.
            target: the target of the microbatch.
        """
        held = dict(tensors)
        for number, layer in enumerate(self.layers):
            given = [held[boundary] for boundary in self._reads[number]]
            end = self.first + number + 1
            if getattr(layer, "reads_target", end in self.losses):
                given.append(target)
            held[end] = layer(*given)
            for boundary in self._done[number]:
                del held[boundary]
        return {b: held[b] for b in (*self.outputs, *self.losses)}

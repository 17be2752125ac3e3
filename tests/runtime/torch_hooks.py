"""Two ranks that train with torch's hooks of DDP that compress gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import quantization_hooks
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    allreduce_hook,
    bf16_compress_hook,
    fp16_compress_hook,
)
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import (
    PowerSGDState,
    powerSGD_hook,
)
from torch_local import CPU, OPTIMIZERS, Model
from torch_ranks import RANKS, main

from runtime.executor.codecs.coder import Place
from runtime.executor.codecs.power_sgd import PowerSgdCoder
from runtime.executor.codecs.table import seed_of
from runtime.models.batches import microbatch
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.program.codecs.codec import Encoding
from simulator.program.codecs.power_sgd import PowerSgd
from simulator.program.tensors import TensorKind, TensorName

HOOKS: dict[str, Any] = {
    "fp16": fp16_compress_hook,
    "bf16": bf16_compress_hook,
    "int8": quantization_hooks.quantization_pertensor_hook,
}


def all_gather(gathered: Any, tensor: Any, group: Any, async_op: bool) -> Any:
    """Gather as NCCL does, whose future has a list of what was gathered, where gloo has that."""
    work = dist.all_gather(gathered, tensor, group=group, async_op=async_op)
    return SimpleNamespace(get_future=lambda: work.get_future().then(lambda _: [gathered]))


class PowerSgdHook:
    """torch's `powerSGD_hook`, which begins with the same right factors as ours."""

    def __init__(self, experiment: Experiment, model: nn.Module):
        rank, start = experiment.parallel.compression_rank, experiment.parallel.compression_start
        assert rank and start
        self.codec = PowerSgd(rank)
        self.state = PowerSGDState(None, rank, start, use_error_feedback=True, warm_start=True)
        self.factors: dict[int, Any] = {}
        parameters = [p for m in model.modules() for p in m.parameters(recurse=False)]
        shapes = tuple(tuple(p.shape) for p in parameters)
        like = torch.cat([p.detach().flatten() for p in parameters])
        seed = seed_of(TensorName(TensorKind.GRADIENTS, 0), experiment.run.seed)
        coder = PowerSgdCoder(
            Encoding(self.codec, like.dtype.itemsize, shapes=shapes), like, Place(0, seed)
        )
        begin = 0
        for parameter, shape in zip(parameters, shapes, strict=True):
            if found := self.codec.factors(shape):
                end = begin + found.columns * found.rank
                self.factors[id(parameter)] = coder.kept[begin:end]
                begin = end

    def __call__(self, group, bucket):  # type: ignore[no-untyped-def]
        """Compress a bucket, which has parameters in DDP's order; factors are grouped by shape."""
        state, index = self.state, bucket.index()
        if state.iter == state.start_powerSGD_iter and index not in state.q_memory_dict:
            mine = [p for p in bucket.parameters() if id(p) in self.factors]
            by_shape: dict[Any, list[Any]] = {}
            for p in mine:
                by_shape.setdefault(p.shape, []).append(p)
            mine = [p for same in by_shape.values() for p in same]
            rows = sum(p.shape[0] * self.codec.factors(tuple(p.shape)).rank for p in mine)
            state.q_memory_dict[index] = torch.cat([self.factors[id(p)] for p in mine])
            state.p_memory_dict[index] = torch.empty(rows, dtype=mine[0].dtype)
        return powerSGD_hook(state, bucket)


def delayed_hook(state, bucket):  # type: ignore[no-untyped-def]
    """Use a hook from a step on; torch's PowerSGD counts for itself."""
    (hook, start, count), group = state, dist.group.WORLD
    chosen = hook if count[0] >= start or isinstance(hook, PowerSgdHook) else allreduce_hook
    return chosen(group, bucket)


def script(rank: int, job: dict[str, Any]) -> None:
    """Train every case, and save its parameters by layer and name."""
    names = {"all_gather": all_gather, "get_rank": dist.get_rank, "group": dist.group}
    quantization_hooks.dist = SimpleNamespace(**names)
    for number, keys in enumerate(job["cases"]):
        experiment = parse(keys)
        parallel, run = experiment.parallel, experiment.run
        model = Model(experiment)
        replicated = nn.parallel.DistributedDataParallel(model)  # all of it in one bucket
        start, count = parallel.compression_start or 0, [0]
        hook = HOOKS.get(parallel.compression) or PowerSgdHook(experiment, model)

        replicated.register_comm_hook((hook, start, count), delayed_hook)
        optimizer = OPTIMIZERS[experiment.workload.optimizer](
            replicated.parameters(), lr=run.learning_rate
        )
        for step in range(run.horizon):
            count[0] = step
            optimizer.zero_grad()
            replicated(*microbatch(experiment, step, rank, CPU)).backward()
            optimizer.step()
        values = {name.removeprefix("layers."): p.detach() for name, p in model.named_parameters()}
        torch.save(values, Path(job["out"]) / f"{number}-{rank}.pt")
        assert parallel.data == RANKS


if __name__ == "__main__":
    main(script)

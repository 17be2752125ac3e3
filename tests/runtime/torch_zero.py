"""Two ranks that train with torch's own sharded data parallelism, and then run our
programs while the bytes of their collectives are counted.

Run by `test_zero` as ``python torch_zero.py JOB.json``. In the first part nothing of our
executor is used: layers from `build_layer` only.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch_ranks import main

from runtime.executor.groups import COLLECTIVE
from runtime.launch.job import Job
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from runtime.progress import Progress
from runtime.rank.session import run_job
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.workloads.describe import describe

CPU = torch.device("cpu")


class Model(nn.Module):
    def __init__(self, experiment: Experiment):
        super().__init__()
        count = len(describe(experiment))
        self.layers = nn.ModuleList(build_layer(experiment, i, CPU) for i in range(count))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.layers[-1](x, target)


def train(experiment: Experiment, rank: int, how: str) -> dict[str, torch.Tensor]:
    """The parameters that torch gets, by name."""
    model: nn.Module = Model(experiment)
    rate = experiment.run.learning_rate
    if how == "fully_shard":
        mesh = init_device_mesh("cpu", (experiment.parallel.data,))
        for layer in model.layers:
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    else:
        model = DistributedDataParallel(model)
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), optimizer_class=torch.optim.Adam, lr=rate
        )
    count = experiment.parallel.microbatches
    for step in range(experiment.run.iterations):
        optimizer.zero_grad()
        for index in range(count):
            x, target = microbatch(experiment, step, rank * count + index, CPU)
            (model(x, target) / count).backward()
        optimizer.step()
    return {
        name.removeprefix("module.").removeprefix("layers."): (
            parameter.full_tensor() if how == "fully_shard" else parameter
        ).detach()
        for name, parameter in model.named_parameters()
    }


def count_bytes(experiment: Experiment, rank: int) -> float:
    """What this rank sends in the collectives of one step, by a ring, from the tensors that
    they are really given."""
    sent, plain = [0.0], dict(COLLECTIVE)

    def counted(call):
        def wrapped(into, given, group, **keys):
            size = dist.get_world_size(group)
            sent[0] += max(into.nbytes, given.nbytes) * (size - 1) / size
            return call(into, given, group=group, **keys)

        return wrapped

    COLLECTIVE.update({op: counted(call) for op, call in plain.items()})
    run_job(Job(experiment), rank, CPU, Progress(), lambda share, what: None)
    COLLECTIVE.update(plain)
    return sent[0] / experiment.run.iterations


def run(rank: int, job: dict) -> None:
    trained = {how: train(parse(job["train"]), rank, how) for how in job["how"]}
    counted = [count_bytes(parse(experiment), rank) for experiment in job["count"]]
    torch.save((trained, counted), Path(job["out"]) / f"{rank}.pt")


if __name__ == "__main__":
    main(run)

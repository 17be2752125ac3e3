"""Two ranks that train with torch's own tensor parallelism (DTensor), and then run our
programs while the bytes of their collectives are counted.

Run by `test_tensor_oracles` as ``python torch_tensor.py JOB.json``. In the first part
nothing of our executor is used: layers from `build_layer` only.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch_ranks import main

from runtime.executor import groups
from runtime.launch.job import Job
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from runtime.progress import Progress
from runtime.rank.session import run_job
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.program.operations import Op
from simulator.workloads.describe import describe

CPU = torch.device("cpu")


def plan(layer: nn.Module) -> dict[str, object]:
    """How torch splits a layer of gpt or mlp. Attention stays whole: its packed Q, K and V are
    not what column-wise sharding expects."""
    names = {name for name, _ in layer.named_children()}
    if "fc1" in names:
        return {"fc1": ColwiseParallel(), "fc2": RowwiseParallel()}
    if "token" in names:
        return {"token": RowwiseParallel(input_layouts=Replicate())}
    if "logits" in names:
        return {"logits": ColwiseParallel(output_layouts=Replicate())}
    return {}


def train(experiment: Experiment) -> dict[str, torch.Tensor]:
    """The parameters that torch gets, by layer and name."""
    mesh = init_device_mesh("cpu", (2,))
    layers = [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
    for layer in layers:
        parallelize_module(layer, mesh, plan(layer))
    parameters = {
        f"{index}.{name}": parameter
        for index, layer in enumerate(layers)
        for name, parameter in layer.named_parameters()
    }
    assert any(isinstance(p, DTensor) and Shard(0) in p.placements for p in parameters.values())
    optimizer = torch.optim.SGD(parameters.values(), lr=experiment.run.learning_rate)
    count = experiment.parallel.microbatches
    for step in range(experiment.run.iterations):
        optimizer.zero_grad()
        for index in range(count):
            x, target = microbatch(experiment, step, index, CPU)
            for layer in layers[:-1]:
                x = layer(x)
            (layers[-1](x, target) / count).backward()
        optimizer.step()
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach()
        for name, p in parameters.items()
    }


def count_bytes(experiment: Experiment, rank: int) -> float:
    """What this rank sends in the collectives of a step, by a ring, from the tensors that they
    are really given."""
    sent, reduce, others = [0.0], dist.all_reduce, dict(groups.COLLECTIVE)

    def reduced(tensor, *arguments, group=None, **keys):
        if group is not None:  # of the program; the session's own use the default group
            size = dist.get_world_size(group)
            sent[0] += 2 * tensor.nbytes * (size - 1) / size
        return reduce(tensor, *arguments, group=group, **keys)

    def counted(op, call):
        def wrapped(into, given, group, **keys):
            size = dist.get_world_size(group)
            share = 1.0 if op in (Op.SHIFT, Op.SHIFT_BACK) else (size - 1) / size
            sent[0] += max(into.nbytes, given.nbytes) * share
            return call(into, given, group=group, **keys)

        return wrapped

    groups.dist.all_reduce = reduced
    groups.COLLECTIVE.update({op: counted(op, call) for op, call in others.items()})
    run_job(Job(experiment), rank, CPU, Progress(), lambda share, what: None)
    groups.COLLECTIVE.update(others)
    groups.dist.all_reduce = reduce
    return sent[0] / experiment.run.iterations


def run(rank: int, job: dict) -> None:
    trained = [train(parse(experiment)) for experiment in job["train"]]
    counted = [count_bytes(parse(experiment), rank) for experiment in job["count"]]
    torch.save((trained, counted), Path(job["out"]) / f"{rank}.pt")


if __name__ == "__main__":
    main(run)

"""The parameters of the model at the end of a run, put together from all ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from runtime.executor.context import RankContext
from simulator.strategies.gradients.parameter_layout import model_ranks


def parameters_norm(context: RankContext) -> float:
    """Return the L2 norm over the whole model, each parameter counted once, on every rank.

    Where servers serve workers as they come, the model is what servers have; where trainers serve
    each other, it is what each of them updates.
    """
    rank = context.rank.number
    square = torch.zeros(1, dtype=torch.float64)
    servers = {queue.server for queue in context.rank.program.queues if queue.steps}
    counted = servers or {*model_ranks(context.rank.experiment, 0)}
    for parameters in context.parameters.values():
        bucket = parameters.bucket
        if rank not in ({bucket.server} if bucket.server in bucket.replicas else counted):
            continue
        square += parameters.shard.double().square().sum().cpu() / bucket.copies
    dist.all_reduce(square)
    return float(square.sqrt()[0])


def gathered_tensors(context: RankContext) -> dict[str, Any] | None:
    """Return parameters and last gradients by rank and layer range on rank 0, None elsewhere.

    They are put together from the shards that each rank sends. Where a server updates, gradients
    are those that it has summed.
    """
    values = {name: p.shard.double().cpu() for name, p in context.parameters.items()}
    gradients = {name: flat.double().cpu() for name, flat in context.last_gradients.items()}
    slices = {name: parameters.segments for name, parameters in context.parameters.items()}
    program = context.rank.program
    first = context.rank.number == 0
    everyone: list[Any] | None = [None] * program.num_ranks if first else None
    dist.gather_object((values, gradients, slices), everyone)
    if everyone is None:
        return None
    tensors: dict[str, Any] = {}
    for rank, buckets in enumerate(program.buckets):
        found = tensors[str(rank)] = {}
        for bucket in buckets:
            holders = bucket.shards or (rank,)
            updaters = holders if bucket.server is None else (bucket.server,)
            whole = [
                torch.cat([everyone[member][which][bucket.name] for member in members])
                for which, members in enumerate((holders, updaters))
            ]
            for (first_layer, last_layer), part in everyone[rank][2][bucket.name].items():
                found[f"{first_layer}:{last_layer}"] = tuple(flat[part].tolist() for flat in whole)
    return tensors

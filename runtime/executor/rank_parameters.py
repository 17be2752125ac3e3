"""The parameters of all buckets of a rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from runtime.executor.parameters import Parameters
from runtime.models.segment import Segment
from simulator.experiment.experiment import Experiment
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import TensorName, pushed_sum


def parameters_of(
    experiment: Experiment,
    buckets: Sequence[Bucket],
    segments: dict[tuple[int, int], Segment],
    rank: int,
    device: torch.device,
    tasks: Iterable[Task] = (),
) -> dict[TensorName, Parameters]:
    """Return flat buffers for every bucket of a rank, by its name.

    Args:
        experiment: says their types and their optimizer.
        buckets: those of the rank.
        segments: its modules by layer range; a server, which computes no passes, has none, and
            starts from the parameters of the first rank that has the bucket.
        rank: its number.
        device: where its tensors live.
        tasks: those of its instructions, which say what is exchanged as a sum, and copied for
            passes.
    """

    def modules(bucket: Bucket) -> list[Segment]:
        if rank in bucket.replicas or bucket.server != rank:
            return [segments[layers] for layers in bucket.segments]
        coordinate = experiment.mesh.coordinate(bucket.replicas[0])
        return [Segment(experiment, *layers, device, coordinate) for layers in bucket.segments]

    named = {task.tensor for task in tasks}
    apart = {task.tensor for task in tasks if task.op is Op.SNAPSHOT and not task.allocates}
    return {
        bucket.name: Parameters(
            experiment,
            modules(bucket),
            bucket,
            rank,
            pushed_sum(bucket.weights) in named,
            bucket.weights in apart,
        )
        for bucket in buckets
    }

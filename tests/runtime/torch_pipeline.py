"""One rank of `torch.distributed.pipelining` with a schedule that was loaded from CSV.

Run by `test_oracles` as ``python torch_pipeline.py JOB.json``. Nothing of our executor
is used: torch's stages, torch's schedule runtime, layers from `build_layer` only.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime
from torch_ranks import main

from runtime.models.batches import microbatch
from runtime.models.segment import boundary, build_layer
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse

CPU = torch.device("cpu")


def run(rank: int, job: dict) -> None:
    experiment = parse(job["experiment"])
    microbatches = experiment.parallel.microbatches
    data = [microbatch(experiment, 0, index, CPU) for index in range(microbatches)]
    inputs, targets = (torch.cat(parts) for parts in zip(*data, strict=True))
    for number, case in enumerate(job["cases"]):
        stages, grown = [], {}
        for index, (first, last) in enumerate(case["stages"]):
            if case["owner"][index] != rank:
                continue
            is_last = index + 1 == len(case["stages"])
            layers = [build_layer(experiment, i, CPU) for i in range(first, last)]
            grown |= dict(zip(range(first, last), layers, strict=True))
            given = example(experiment, first) if first else data[0][0]
            if is_last:  # torch scales the gradients of stages only: the loss has no parameters
                *layers, head = layers
                layers += [head.norm, head.logits]
                made = torch.zeros(*data[0][0].shape, experiment.workload.vocab, dtype=given.dtype)
            else:
                made = example(experiment, last)
            stages.append(
                PipelineStage(
                    nn.Sequential(*layers),
                    index,
                    len(case["stages"]),
                    CPU,
                    input_args=(given,),
                    output_args=(made.requires_grad_(),),
                )
            )
        schedule = _PipelineScheduleRuntime(stages, microbatches, loss_fn=loss)
        schedule._load_csv(case["csv"], format="compute_only")
        losses: list[torch.Tensor] = []
        arguments = (inputs,) if case["owner"][0] == rank else ()
        if case["owner"][-1] == rank:
            schedule.step(*arguments, target=targets, losses=losses)
        else:
            schedule.step(*arguments)
        gradients = {
            f"{index}.{name}": parameter.grad
            for index, layer in grown.items()
            for name, parameter in layer.named_parameters()
        }
        torch.save(
            (gradients, [value.item() for value in losses]),
            Path(job["out"]) / f"{number}-{rank}.pt",
        )
        dist.barrier()


def example(experiment: Experiment, index: int) -> torch.Tensor:
    shape, dtype = boundary(experiment, index)
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


if __name__ == "__main__":
    main(run)

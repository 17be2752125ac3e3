"""Two ranks that train with torch's `post_localSGD_hook` and `PeriodicModelAverager`.

torch averages when (step - warm-up) is a multiple of the period, steps being counted from 0, so
after the first step if there is no warm-up. A period that ends before its average is one with a
warm-up of as many synchronous steps, and of the rest of a period.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import (
    PostLocalSGDState,
    post_localSGD_hook,
)
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch_ranks import RANKS, main

from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class Model(nn.Module):
    """The layers of an experiment; the last one gives the loss."""

    def __init__(self, experiment: Experiment):
        super().__init__()
        count = len(describe(experiment))
        self.layers = nn.ModuleList([build_layer(experiment, i, CPU) for i in range(count)])

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        for layer in list(self.layers)[:-1]:
            x = layer(x)
        loss: Tensor = self.layers[-1](x, target)
        return loss


def script(rank: int, job: dict[str, Any]) -> None:
    """Train every case, and save its parameters by layer and name."""
    for number, keys in enumerate(job["cases"]):
        experiment = parse(keys)
        parallel, run = experiment.parallel, experiment.run
        model = Model(experiment)
        replicated = nn.parallel.DistributedDataParallel(model)
        before, period = parallel.local_after or 0, parallel.sync_period or 1
        state = PostLocalSGDState(None, None, before, post_local_gradient_allreduce=False)
        replicated.register_comm_hook(state, post_localSGD_hook)
        averager = PeriodicModelAverager(period=period, warmup_steps=before + period - 1)
        optimizer = OPTIMIZERS[experiment.workload.optimizer](
            replicated.parameters(), lr=run.learning_rate
        )
        for step in range(run.horizon):
            optimizer.zero_grad()
            replicated(*microbatch(experiment, step, rank, CPU)).backward()
            optimizer.step()
            averager.average_parameters(replicated.parameters())
        values = {name.removeprefix("layers."): p.detach() for name, p in model.named_parameters()}
        torch.save(values, Path(job["out"]) / f"{number}-{rank}.pt")
        assert parallel.data == RANKS


if __name__ == "__main__":
    main(script)

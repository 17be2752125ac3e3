"""Training steps in a plain loop, to hold the executor's against."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from runtime.models.batches import microbatch
from runtime.models.segment import Segment
from simulator.experiment.experiment import Experiment
from simulator.workloads.describe import describe


def plain_loop(
    torch: Any, clock: Callable[[], float], experiment: Experiment, device: str, steps: int
) -> dict[str, float]:
    """Seconds of a step (median) of one rank, and the last loss: ``loss.backward()`` in a loop.

    Nothing of the executor, of flat buffers or of streams is used. AdamW has the state of the
    executor's, on parameters of their own; loss scaling and master weights are left out.
    """
    where = torch.device(device)
    segment = Segment(experiment, 0, len(describe(experiment)), where)
    fused = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.AdamW(segment.parameters(), lr=experiment.run.learning_rate, **fused)
    count, took, loss = experiment.parallel.microbatches, [], torch.zeros(())
    for step in range(steps + 1):
        batches = [microbatch(experiment, step, index, where) for index in range(count)]
        _finish(torch, device)
        begin = clock()
        total = torch.zeros((), device=where)
        for x, target in batches:
            losses = segment({0: x}, target)
            loss = sum(losses[b] * weight for b, weight in segment.losses.items()) / count
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        _finish(torch, device)
        took.append(clock() - begin)
        loss = total
    return {"step_s": statistics.median(took[1:]), "loss": float(loss)}


def _finish(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()

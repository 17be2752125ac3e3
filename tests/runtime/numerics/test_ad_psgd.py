"""Replicas that average in pairs do what the record says, and the record gives the same again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from replicas import assert_close
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from runtime.rank.replay import Replay
from simulator.program.accept_queue import Decision
from simulator.program.operations import Op
from simulator.workloads.describe import describe

CPU = torch.device("cpu")
PAIRS = {"data_style": "ad-psgd", "topology": "ring", "iterations": 2, "warmup": 0}


class Replica:
    """A replica with nothing of the executor: parameters, and a copy that its passes use."""

    def __init__(self, experiment: Any, number: int) -> None:
        self.experiment, self.number = experiment, number
        self.model = [build_layer(experiment, i, CPU) for i in range(len(describe(experiment)))]
        self.used = [p for layer in self.model for p in layer.parameters()]
        self.values = [p.detach().clone() for p in self.used]

    def copy(self) -> None:
        for p, value in zip(self.used, self.values, strict=True):
            p.data.copy_(value)

    def update(self, step: int) -> None:
        """Apply the gradient at the copy to the parameters."""
        count = self.experiment.parallel.microbatches
        for p in self.used:
            p.grad = None
        for index in range(count):
            x, target = microbatch(self.experiment, step, self.number * count + index, CPU)
            for layer in self.model[:-1]:
                x = layer(x)
            (self.model[-1](x, target) / count).backward()
        for p, value in zip(self.used, self.values, strict=True):
            value.sub_(p.grad, alpha=self.experiment.run.learning_rate)

    @property
    def named(self) -> dict[tuple[int, str], torch.Tensor]:
        names = [
            (index, name)
            for index, layer in enumerate(self.model)
            for name, _ in layer.named_parameters()
        ]
        return dict(zip(names, self.values, strict=True))


@pytest.mark.parametrize("more", [{"horizon": 4}, {"horizon": 2, "microbatches": 2}], ids=str)
def test_a_pair_does_what_its_record_says(run, more):
    """Lian et al. 2018, Algorithm 1: replica 0 asks and replica 1 answers."""
    ran = run(**PAIRS | more, data=2, bucket_mb=0.003)
    asks, answers = (Replica(ran.experiment, number) for number in range(2))
    horizon = ran.program.horizon
    for iteration, decisions in enumerate(ran.measurement.decisions):
        for _, request in decisions:
            one = ran.program.instruction(request)
            step = iteration * horizon + one.step
            if one.task.op is Op.SEND:
                asks.copy()  # before it is averaged
                for mine, theirs in zip(asks.values, answers.values, strict=True):
                    theirs.copy_((mine + theirs) / 2)
            elif one.task.op is Op.RECV:
                for mine, theirs in zip(asks.values, answers.values, strict=True):
                    mine.copy_(theirs)
                asks.update(step)
            elif one.task.op is Op.SNAPSHOT:
                answers.copy()
            else:
                answers.update(step)
    for ours, theirs in zip(ran.parameters, (asks, answers), strict=True):
        assert_close(ours, theirs.named)


@pytest.mark.parametrize(
    "more",
    [
        {"horizon": 4, "optimizer": "adam"},
        {"horizon": 3, "clip_norm": 0.1, "optimizer": "momentum", "recompute": "full"},
    ],
    ids=lambda more: more["optimizer"],
)
def test_a_record_gives_the_same_parameters_to_the_bit(run, more):
    ran = run(**PAIRS | more, data=4, bucket_mb=0.003)
    replay = Replay(ran.experiment, ran.program)
    for decisions in ran.measurement.decisions:
        replay.iterate([Decision(*pair) for pair in decisions])
    for context, theirs in zip(replay.contexts, ran.parameters, strict=True):
        (parameters,) = context.parameters.values()
        values = torch.cat([value.flatten() for value in theirs.values()])
        assert parameters.values.equal(values)
    assert len(ran.measurement.consensus_distance) == more["horizon"] + 1
    for sample in ran.measurement.timeline.memory:
        assert sample.nbytes[0] == sample.nbytes[-1]

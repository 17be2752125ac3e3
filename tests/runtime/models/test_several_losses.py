"""A model is a graph: it may have several losses, anywhere, each with a weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from runtime.executor.context import RankContext
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.models import segment
from runtime.models.batches import microbatch
from runtime.models.mlp import Perceptron, SquaredError
from runtime.progress import Progress
from simulator.experiment_file import experiment as plan
from simulator.program.operations import Op
from simulator.strategies.lowering import lower
from simulator.strategies.stages.dataflow import Flow
from simulator.workloads import describe, mlp

WEIGHT = 0.25


@pytest.fixture
def two_headed(monkeypatch):
    """Let `mlp` have a second loss behind its first block, which the second block also reads."""

    def layers(experiment):
        first, second, loss = mlp.layers(experiment)
        early = replace(loss, loss_weight=WEIGHT, starts_block=False)
        return [first, early, replace(second, reads=(1,), starts_block=False), loss]

    def build(experiment, index):
        w = experiment.workload
        return SquaredError() if index % 2 else Perceptron(w.hidden, w.ffn)

    monkeypatch.setitem(describe.MODELS, "mlp", layers)
    monkeypatch.setitem(segment.MODELS, "mlp", build)
    describe._described.cache_clear()
    yield
    describe._described.cache_clear()


def test_losses_are_what_nobody_reads(two_headed, experiment):
    flow = Flow(describe.describe(experiment(model="mlp", layers=2)))
    assert flow.losses(0, 4) == {2: WEIGHT, 4: 1.0}
    assert flow.losses(0, 1) == {}
    assert flow.losses(2, 4) == {4: 1.0}


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_gradients_are_those_of_the_weighted_sum(two_headed, experiment, alone, recompute):
    tiny = experiment(model="mlp", layers=2, pipeline=1, microbatches=2, recompute=recompute)
    program = lower(tiny)
    context = RankContext(Rank(tiny, program, 0, alone, Progress()), Groups((), 60.0))
    executor = Executor(context)
    batches = {(0, index): microbatch(tiny, 0, index, alone) for index in range(2)}
    (parameters,) = context.parameters.values()
    layers = [segment.build_layer(tiny, index, alone) for index in range(4)]
    expected = []
    for x, target in batches.values():
        middle = layers[0](x)
        early = WEIGHT * layers[1](middle, target)
        last = layers[3](layers[2](middle), target)
        expected += [early.item(), last.item()]
        ((early + last) / 2).backward()
    gradients = torch.cat([p.grad.flatten() for layer in layers for p in layer.parameters()])
    for instruction in executor.walk(batches):
        if instruction.task.op is Op.BACKWARD:
            found = parameters.gradients.clone()
    executor.close()
    assert [loss.item() for _, loss in context.losses] == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(found, gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("model", ["mlp", "gpt", "moe-gpt", "bert", "alexnet", "vgg16", "resnet50"])
def test_models_have_one_loss_at_their_end(model):
    layers = describe.describe(plan(model=model))
    assert Flow(layers).losses(0, len(layers)) == {len(layers): 1.0}

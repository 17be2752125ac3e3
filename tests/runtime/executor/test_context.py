"""The context knows tensors, parameters and weights of losses from the program alone."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.context import BoundaryNames, RankContext
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.progress import Progress
from simulator.program.operations import BACKWARDS, FORWARDS, Op
from simulator.program.tensors import activation, gradient
from simulator.strategies.lowering import lower


def made(experiment, device, rank=0, **plan):
    tiny = experiment(**plan)
    return RankContext(Rank(tiny, lower(tiny), rank, device, Progress()), Groups((), 60.0))


@pytest.mark.parametrize(
    "plan",
    [
        {"pipeline": 2, "model": "moe-gpt", "schedule": "zb-h1"},
        {"tensor": 2, "sequence_parallel": True},
        {"tensor": 2, "pipeline": 2},
        {"context": 2},
        {"expert": 2, "model": "moe-gpt"},
        {"recompute": "full"},
    ],
    ids=str,
)
def test_every_tensor_that_a_pass_reads_belongs_to_a_boundary_of_its_segment(
    alone, experiment, plan
):
    """Inputs in order, parts of gradients at an output."""
    tiny = experiment(**plan)
    for rank in range(tiny.world_size):
        context = made(experiment, alone, rank, **plan)
        for instruction in context.rank.instructions:
            task = instruction.task
            if task.op in FORWARDS:
                names = context.names[task.layers]
                inputs = context.segments[task.layers].inputs
                assert [names.activations[b] for b in inputs] == list(task.sources)
            elif task.op in BACKWARDS - {Op.BACKWARD_WEIGHT}:
                names = context.names[task.layers]
                read = [n for n in task.sources if n not in names.activations.values()]
                outputs = {names.outputs[name] for name in read}
                assert outputs <= set(context.segments[task.layers].outputs)


def test_parts_of_a_gradient_are_found_by_name():
    names = BoundaryNames({1: activation(1)}, {gradient(3): 3, gradient(3, 5): 3})
    assert {names.outputs[name] for name in (gradient(3), gradient(3, 5))} == {3}


def test_tensors_are_held_until_the_program_frees_them(alone, experiment):
    context = made(experiment, alone, microbatches=2)
    backward = next(i for i in context.rank.instructions if i.task.op is Op.BACKWARD)
    context.ledger.hold((backward.task.frees[0], backward.batch), 8, 0)
    for name in backward.task.frees[1:]:
        context.put(name, torch.zeros(2), backward)
    freed = context.release(backward)
    assert context.tensors == {}
    assert len(freed.tensors) == len(backward.task.frees) - 1  # till they are dropped
    freed.drop()
    assert freed.tensors == []
    context.ledger.restart()  # nothing is left


def test_parameters_are_found_by_what_communication_is_about(alone, experiment):
    context = made(experiment, alone, data=2, zero=3, pipeline=1, microbatches=1)
    (parameters, *_) = context.parameters.values()
    bucket = parameters.bucket
    assert context.parameters_named(bucket.name) is parameters
    assert context.parameters_named(bucket.weights) is parameters
    assert context.parameters_named(activation(1)) is None
    assert context.parameters_of(bucket.segments[0]) is parameters
    held = {name: nbytes for name, nbytes in context.resident_bytes().items() if nbytes}
    assert held == context.rank.program.resident[0]


def test_a_transfer_of_nothing_says_so(alone, experiment):
    with pytest.raises(ValueError, match="its task names no tensor"):
        made(experiment, alone).add_up((), (0, 0))

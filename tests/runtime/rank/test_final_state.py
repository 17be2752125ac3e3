"""Parameters at the end of a run are those of the whole model, each once."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.context import RankContext
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.progress import Progress
from runtime.rank.final_state import gathered_tensors, parameters_norm
from simulator.strategies.lowering import lower


@pytest.fixture
def context(alone, experiment):
    tiny = experiment(microbatches=1)
    return RankContext(Rank(tiny, lower(tiny), 0, alone, Progress()), Groups((), 60.0))


def test_the_norm_is_that_of_all_parameters(context):
    squares = sum(float(p.values.square().sum()) for p in context.parameters.values())
    assert parameters_norm(context) == pytest.approx(squares**0.5)


def test_replicas_and_copies_count_once(run):
    alone = run(microbatches=4, pipeline=1)
    for plan in ({"data": 4}, {"tensor": 2, "microbatches": 4}, {"data": 2, "microbatches": 2}):
        norm = run(pipeline=1, **plan).measurement.parameters_norm
        assert norm == pytest.approx(alone.measurement.parameters_norm, rel=1e-9)


def test_tensors_are_cut_by_layer_range(context):
    for name, parameters in context.parameters.items():
        context.last_gradients[name] = torch.full_like(parameters.values, 2.0)
    tensors = gathered_tensors(context)
    assert tensors is not None
    (found,) = tensors.values()
    for parameters in context.parameters.values():
        for (first, last), where in parameters.segments.items():
            values, gradients = found[f"{first}:{last}"]
            assert values == parameters.values[where].tolist()
            assert gradients == [2.0] * len(values)

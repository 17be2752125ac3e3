"""Every rank has the microbatches of its replica, or all where a rank divides the batch."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from runtime.progress import Progress
from runtime.rank.input import BatchesOnDemand, batches_of
from simulator import load, lower
from simulator.experiment.experiment import Experiment

KEYS = ["model=mlp", "pipeline=1", "microbatches=2", "layers=1", "hidden=8", "sequence=4"]
CPU = torch.device("cpu")


def rank(plan: Experiment, number: int) -> Rank:
    return Rank(plan, lower(plan), number, CPU, Progress())


@pytest.mark.parametrize(
    ("style", "of_rank"),
    [
        ("all-reduce", {0: {0: 0, 1: 1}, 1: {0: 2, 1: 3}}),
        ("scatter-gather", {0: {0: 0, 1: 1, 2: 2, 3: 3}, 1: {0: 0, 1: 1, 2: 2, 3: 3}}),
    ],
)
def test_microbatches_are_those_of_the_whole_step(
    style: str, of_rank: dict[int, dict[int, int]]
) -> None:
    plan = load(None, [*KEYS, "data=2", f"data_style={style}", "horizon=2"])
    for number, expected in of_rank.items():
        mine = rank(plan, number)
        made, asked = batches_of(mine, 1), BatchesOnDemand(mine, 1)
        assert set(made) == set(asked) == {(s, i) for s in (0, 1) for i in expected}
        assert len(made) == len(asked)
        for (step, index), (data, _) in made.items():
            whole, _ = microbatch(plan, 2 + step, expected[index], CPU)
            assert torch.equal(data, whole)
            assert torch.equal(data, asked[step, index][0])


def test_servers_have_none() -> None:
    plan = load(None, [*KEYS, "data=2", "data_style=parameter-server"])
    server = rank(plan, 2)
    assert (len(batches_of(server, 0)), len(BatchesOnDemand(server, 0))) == (0, 0)

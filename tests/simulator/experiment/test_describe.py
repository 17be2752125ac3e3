"""A plan in a few words names what was asked for and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.experiment.describe import describe_plan, describe_ranks
from simulator.experiment_file import experiment

MOE = {"model": "moe-gpt", "experts": 4}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "gpt, one rank, 1 microbatch"),
        ({"microbatches": 3}, "gpt, one rank, 3 microbatches"),
        ({"pipeline": 2, "data": 2}, "gpt, data 2 × pipeline 2, 1f1b, 1 microbatch"),
        (
            {"tensor": 2, "sequence_parallel": True, "recompute": "full"},
            "gpt, tensor 2, sequence parallel, recompute full, 1 microbatch",
        ),
        (
            {"data": 2, "data_style": "parameter-server"},
            "gpt, data 2, parameter-server, 1 server, 1 microbatch",
        ),
        (
            {"data": 2, "data_style": "gossip", "topology": "ring"},
            "gpt, data 2, gossip, 1 microbatch",
        ),
        ({"data": 4, "zero": 2}, "gpt, data 4, zero 2, 1 microbatch"),
        ({"context": 2}, "gpt, context 2, ring, 1 microbatch"),
        ({**MOE, "data": 2, "expert": 2}, "moe-gpt, data 2 × expert 2, 1 microbatch"),
        (
            {**MOE, "data": 4, "expert": 2, "expert_inside_data": True},
            "moe-gpt, data 2 × expert 2, 1 microbatch",
        ),
    ],
)
def test_words(keys: dict[str, Any], words: str) -> None:
    assert describe_plan(experiment(**keys)) == words


def test_ranks() -> None:
    assert describe_ranks(experiment(data=2)) == "parallel: data × pipeline × … = 2 ranks"
    served = experiment(data=2, data_style="parameter-server", servers=3)
    assert describe_ranks(served) == "parallel: data × pipeline × … + servers = 5 ranks"

"""The step comes last, after the gradients of its stage."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.program.operations import Op


@pytest.mark.parametrize("data", [1, 2])
@pytest.mark.parametrize("pipeline", [1, 2])
def test_one_step_per_rank_after_all_its_reductions(data: int, pipeline: int) -> None:
    program = lower(
        load(
            None,
            [
                "workload.model=mlp",
                f"parallel.data={data}",
                f"parallel.pipeline={pipeline}",
                "parallel.bucket_mb=0.5",
            ],
        )
    )
    for instructions in program.ranks:
        *others, last = instructions
        assert last.task.op is Op.OPTIMIZER_STEP
        assert not any(i.task.op is Op.OPTIMIZER_STEP for i in others)
        reductions = [i for i in others if i.task.op is Op.ALL_REDUCE]
        assert list(last.after) == reductions
        assert (len(reductions) > 1) == (data > 1)
        assert last.task.layers == (
            min(i.task.layers[0] for i in others if i.task.op is Op.FORWARD),
            max(i.task.layers[1] for i in others),
        )


def test_no_parameters_no_step() -> None:
    program = lower(load(None, ["workload.model=unit", "parallel.pipeline=3"]))
    assert not any(i.task.op is Op.OPTIMIZER_STEP for i in program)

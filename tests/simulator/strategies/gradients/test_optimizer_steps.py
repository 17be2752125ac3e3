"""The step comes last, after the gradients of its stage."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.experiment.section import ExperimentError
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


@pytest.mark.parametrize("schedule", ["1f1b", "zb-v"])
def test_a_clipped_step_waits_for_the_norm_over_the_pipeline(schedule: str) -> None:
    """Every stage adds its part; the sum is one small all-reduce; all steps wait for it."""
    program = lower(
        load(
            None,
            [
                "workload.clip_norm=1",
                "parallel.data=2",
                "parallel.bucket_mb=0.5",
                f"parallel.schedule={schedule}",
                f"parallel.virtual_stages={2 if schedule == 'zb-v' else 1}",
            ],
        )
    )
    for rank, instructions in enumerate(program.ranks):
        norms = [i for i in instructions if i.task.op is Op.GRADIENT_NORM]
        steps = [i for i in instructions if i.task.op is Op.OPTIMIZER_STEP]
        (total,) = [i for i in instructions if i.task.mnemonic == "REDUCE_NORM"]
        reductions = {i for i in instructions if i.task.mnemonic == "REDUCE_GRAD"}
        assert [i.task.layers for i in norms] == [i.task.layers for i in steps]
        assert reductions == {i for norm in norms for i in norm.after}
        assert (total.task.nbytes, total.after) == (8, (norms[-1],))
        assert total.task.group == ((0, 1) if rank < 2 else (2, 3))
        assert all(total in step.after for step in steps)


def test_asynchronous_schedules_cannot_clip() -> None:
    with pytest.raises(ExperimentError, match=r"^workload.clip_norm = 1: .* synchronous schedules"):
        lower(load(None, ["workload.clip_norm=1", "parallel.schedule=pipedream"]))

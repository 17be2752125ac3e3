"""Clipping waits for the norm of the gradient over the whole model."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op


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


def test_servers_have_the_norm_among_them() -> None:
    """Each server squares its buckets; trainers take no part; no bucket leaves before the sum."""
    keys = ["clip_norm=1", "pipeline=2", "bucket_mb=0.5", "data_style=parameter-server"]
    program = lower(load(None, [*keys, "servers=2"]))
    for rank, instructions in enumerate(program.ranks):
        norms = [i for i in instructions if i.task.op is Op.GRADIENT_NORM]
        steps = [i for i in instructions if i.task.op is Op.OPTIMIZER_STEP]
        totals = [i for i in instructions if i.task.mnemonic == "REDUCE_NORM"]
        if rank < 2:
            assert (norms, steps, totals) == ([], [], [])
            continue
        (total,) = totals
        assert total.task.group == (2, 3)
        assert len(norms) == len(steps) == len(program.buckets[rank]) > 1
        assert [i.task.tensor for i in norms] == [i.task.tensor for i in steps]
        assert all(total in step.after for step in steps)
        assert {i.task.op for norm in norms for i in norm.after} == {Op.REDUCE}
        assert all(i.index > total.index for i in instructions if i.task.op is Op.BROADCAST)
    keys.append("servers=1")
    assert not any(i.task.mnemonic == "REDUCE_NORM" for i in lower(load(None, keys)))


def test_asynchronous_schedules_cannot_clip() -> None:
    with pytest.raises(ExperimentError, match=r"^workload.clip_norm = 1: .* synchronous schedules"):
        lower(load(None, ["workload.clip_norm=1", "parallel.schedule=pipedream"]))

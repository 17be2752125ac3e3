"""Gradients are reduced once per segment, as soon as its last backward pass has ended."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.program.operations import Op

SMALL = ["workload.model=mlp", "workload.layers=4", "workload.hidden=64", "workload.sequence=8"]


def settings(data: int, pipeline: int, microbatches: int, bucket_mb: float) -> list[str]:
    return [
        *SMALL,
        f"parallel.data={data}",
        f"parallel.pipeline={pipeline}",
        f"parallel.microbatches={microbatches}",
        f"parallel.bucket_mb={bucket_mb}",
    ]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "naive"])
@pytest.mark.parametrize(("pipeline", "buckets"), [(1, [4]), (2, [2, 2]), (4, [1, 1, 1, 1])])
def test_one_reduction_per_segment_after_its_last_backward(
    schedule: str, pipeline: int, buckets: list[int]
) -> None:
    plan = [*settings(2, pipeline, 3, 0.1), f"parallel.schedule={schedule}"]
    program = lower(load(None, plan))
    block = (64 * 256 + 256 + 256 * 64 + 64) * 4
    for rank, instructions in enumerate(program.ranks):
        place = rank % pipeline
        reductions = [i for i in instructions if i.task.op is Op.ALL_REDUCE]
        assert len(reductions) == buckets[place]
        assert sum(i.task.nbytes for i in reductions) == block * 4 // pipeline
        assert all(i.task.group == (place, place + pipeline) for i in reductions)
        # the last layers' gradients come first
        assert [i.task.layers[0] for i in reductions] == sorted(
            (i.task.layers[0] for i in reductions), reverse=True
        )
        for reduction in reductions:
            (backward,) = reduction.after
            assert backward.task.op is Op.BACKWARD
            assert backward.task.layers == reduction.task.layers
            assert backward.microbatch == 2
            later = instructions[reduction.index :]
            assert not any(i.task.layers == backward.task.layers for i in later[1:]
                           if i.task.op is Op.BACKWARD)  # fmt: skip


def test_one_replica_is_left_alone() -> None:
    program = lower(load(None, settings(1, 2, 2, 0.1)))
    assert not any(i.task.op is Op.ALL_REDUCE for i in program)


def test_nothing_to_reduce_is_not_reduced() -> None:
    program = lower(load(None, ["workload.model=unit", "parallel.data=2"]))
    assert not any(i.task.op is Op.ALL_REDUCE for i in program)


def test_reductions_hide_behind_the_backward_pass() -> None:
    """In one bucket the reduction starts when all is done; in four, three of them earlier."""
    ends = {}
    for bucket_mb in (0.1, 100):
        experiment = load(None, [*settings(2, 1, 1, bucket_mb), "cluster.preset=dgx-a100-80gb"])
        timeline = predict(experiment, resolve(experiment)).timeline
        reduce = timeline.of_kind(lambda kind: kind.name == "REDUCE_GRAD") & (timeline.rank == 0)
        backward = timeline.of_kind(lambda kind: kind.op == "B") & (timeline.rank == 0)
        computed = timeline.end[backward].max()
        early = int((timeline.start[reduce] < computed).sum())
        ends[bucket_mb] = (int(reduce.sum()), early)
    assert ends == {0.1: (4, 3), 100: (1, 0)}

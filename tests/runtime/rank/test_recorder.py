"""Steps are recorded from a start that all ranks share; those to get warm are not."""

from __future__ import annotations

import pytest

from runtime.executor.context import RankContext
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.measurement.clock import Clock
from runtime.models.batches import microbatch
from runtime.progress import Progress
from runtime.rank.recorder import StepRecorder
from simulator.strategies.lowering import lower


def test_what_is_kept_is_timed_from_the_common_start(alone, experiment, reference):
    tiny = experiment(microbatches=2, iterations=2, warmup=1)
    rank = Rank(tiny, lower(tiny), 0, alone, Progress())
    executor = Executor(RankContext(rank, Groups((), 60.0)))
    recorder = StepRecorder(executor, Clock())
    for step in range(3):
        batches = {(0, index): microbatch(tiny, step, index, alone) for index in range(2)}
        recorder.step(batches, keep=step > 0)
    executor.close()
    record, count = recorder.record, len(executor.instructions)
    assert [len(times) for times in (*record.posted, *record.end)] == [count] * 4
    for posted, end in zip(record.posted, record.end, strict=True):
        assert all(0 <= p <= e for p, e in zip(posted, end, strict=True))
    for changes in record.memory:
        assert sum(change for _, change, _ in changes) == 0
        assert min(time for time, _, _ in changes) >= 0
    assert record.allocated == []  # the host's allocator does not say
    assert recorder.losses == pytest.approx(reference(tiny)[2], rel=1e-12)

"""A rank rehearses its program without the others: every pass of it is timed, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from runtime.calibration.pass_meter import PassMeter, Samples
from runtime.executor.rank import Rank
from runtime.progress import Progress
from simulator.program.stream import COMPUTE_STREAM
from simulator.strategies.lowering import lower


@pytest.fixture
def rank(alone, experiment) -> Rank:
    tiny = experiment(pipeline=2, microbatches=3)
    return Rank(tiny, lower(tiny), 0, alone, Progress())


@pytest.fixture
def meter(rank) -> Iterator[PassMeter]:
    meter = PassMeter(rank, lambda op, size, nbytes: 0.0)
    yield meter
    meter.close()


def test_passes_are_timed_in_the_order_of_the_program_without_the_other_rank(meter, rank):
    passes = [i for i in rank.instructions if i.task.stream == COMPUTE_STREAM]
    keys = [meter.key_of[id(i.task)] for i in passes]
    seen = [next(meter._walk)[0] for _ in range(2 * len(passes))]
    assert seen == keys * 2


def test_a_turn_times_one_pass_at_least(meter):
    samples: Samples = {}
    meter.time(samples, lambda: False)
    assert [len(times) for times in samples.values()] == [1]
    left = count(3, -1)
    meter.time(samples, lambda: next(left) > 0)
    assert sum(map(len, samples.values())) == 1 + 4


def test_warming_up_runs_every_pass_once(meter, rank):
    assert (meter.longest_s, meter.step_s) == (0.0, 0.0)
    meter.warm_up()
    assert meter._took.keys() == set(meter.key_of.values())
    assert 0 < meter.longest_s < meter.step_s
    before = dict(meter._took)
    meter.warm_up()
    assert meter._took == before


def test_only_passes_that_are_not_known_are_filled_in(meter):
    keys = set(meter.key_of.values())
    samples: Samples = {}
    meter.fill(samples, keys)
    assert samples == {}
    meter.fill(samples, keys - {min(keys)})
    assert min(keys) in samples

"""What cannot be compressed is refused, in a line that says why."""

from __future__ import annotations

import pytest

from simulator import ExperimentError, load

PLAN = ["pipeline=1", "data=2"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("density=0.1", "parallel.density = 0.1: only for parallel.compression = 'top-k', not"),
        ("compression=top-k", "needs parallel.density, which is not set"),
        ("compression=qsgd", "needs parallel.levels, which is not set"),
        ("compression=qsgd levels=128", "levels"),
        ("compression=qsgd levels=0", "levels"),
        ("compression=int8 levels=3", "only for parallel.compression = 'qsgd', not 'int8'"),
        ("compression=power-sgd", "needs parallel.compression_rank, which is not set"),
        ("compression=power-sgd compression_rank=257", "no matrix has (rows + columns) × 257"),
        ("compression=power-sgd compression_rank=103", "compressed; allowed: 1 to 102"),
        ("compression=int8 compression_rank=2", "only for parallel.compression = 'power-sgd'"),
        ("compression=top-k density=0", "density"),
        ("compression=top-k density=1.5", "density"),
        ("compression=fp16 density=0.5", "only for parallel.compression = 'top-k', not 'fp16'"),
        ("error_feedback=true", "true: only for parallel.compression = 'fp16' or 'bf16' or"),
        ("compression=top-k density=nan", "parallel.density = nan: allowed: a finite number"),
        ("compression_start=1", "parallel.compression_start = 1: only for"),
        ("compression=int8 compression_start=1", "must be less than run.horizon = 1"),
        ("compression=int4", "compression"),
        ("compression=int8 data=1", "with one replica no gradients are sent"),
        ("compression=int8 zero=2", "parallel.zero = 2: gradients are summed after each"),
        ("compression=int8 data=4 zero=1 zero_group=2", "would lose something twice"),
        ("compression=int8 dtype=fp16", "loss scale that changes"),
        ("compression=bf16 dtype=bf16", "have 2 bytes already"),
        ("compression=int8 model=unit pipeline=2", "has no parameters"),
        ("compression=int8 data_style=gossip topology=ring", "allowed: 'all-reduce', 'local-sgd'"),
        ("compression=int8 data_style=parameter-server", "whose ranks send more than sums"),
        ("compression=int8 data=1 data_style=diloco sync_period=1", "no parameters are averaged"),
        (
            "compression=int8 data_style=diloco sync_period=2 horizon=4 overlap_steps=1",
            "parallel.overlap_steps = 1: parameters are updated beside",
        ),
        (
            "compression=int8 data_style=local-sgd sync_period=2 horizon=4 compression_start=2",
            "parallel.compression_start = 2: with",
        ),
        ("compression=int8 pipeline=2 schedule=pipedream", "allowed: synchronous schedules"),
    ],
)
def test_a_refusal(sets: str, message: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        load(None, [*PLAN, *sets.split()])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)

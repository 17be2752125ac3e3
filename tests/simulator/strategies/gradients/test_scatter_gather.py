"""One rank with the model: who sends what, what that takes on its link and in its memory."""

from __future__ import annotations

import pytest

from simulator import load, lower, predict
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.workloads.describe import describe

ASKED = ["model=mlp", "pipeline=1", "data_style=scatter-gather", "layers=2"]


def program(*more: str) -> Program:
    return lower(load(None, [*ASKED, *more]))


def test_shares_go_out_outputs_come_back_and_losses_are_of_rank_0() -> None:
    root, other = (
        [i.label for i in listed] for listed in program("data=2", "microbatches=2").ranks
    )
    assert root == [
        "0SEND_BATCH2", "0F0", "1RECV_F2", "1F0", "1F2", "1B0", "1B2", "1SEND_B2", "0B0",
        "0SEND_BATCH3", "0F1", "1RECV_F3", "1F1", "1F3", "1B1", "1B3", "1SEND_B3", "0B1",
        "0REDUCE_GRAD", "0STEP", "0BROADCAST",
    ]  # fmt: skip
    assert other == [
        "0RECV_BATCH2", "0RECV_B2", "0F2", "0SEND_F2", "0RECV_BATCH3", "0B2", "0RECV_B3",
        "0F3", "0SEND_F3", "0B3", "0REDUCE_GRAD", "0BROADCAST",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 4])
def test_the_link_of_rank_0_carries_what_all_others_need(count: int) -> None:
    """Parameters and inputs go out, gradients come in; outputs come in, and their gradients go."""
    lists = program(f"data={count}", "microbatches=3", "bucket_mb=1")
    experiment = load(None, [*ASKED, f"data={count}", "microbatches=3"])
    outputs = describe(experiment)[-2].output_bytes
    batch = outputs  # as wide as what comes out
    whole = sum(bucket.nbytes for bucket in lists.buckets[0])
    totals = {
        name: sum(i.task.nbytes for i in lists.ranks[0] if i.task.name == name)
        for name in ("SEND_BATCH", "RECV_F", "SEND_B", "REDUCE_GRAD", "BROADCAST")
    }
    shares = 3 * (count - 1)
    assert totals == {
        "SEND_BATCH": shares * batch,
        "RECV_F": shares * outputs,
        "SEND_B": shares * outputs,
        "REDUCE_GRAD": whole,
        "BROADCAST": whole,
    }


def test_memory_of_rank_0_grows_with_every_share() -> None:
    """It has all outputs at once, and what their losses keep; the others have their own."""
    peaks = {}
    for count in (2, 3, 4):
        ranks = predict(load(None, [*ASKED, f"data={count}", "optimizer=adam"])).ranks
        peaks[count] = [row.peak_memory_bytes for row in ranks]
    *_, last, loss = describe(load(None, [*ASKED, "data=2"]))
    each = last.output_bytes + loss.saved_bytes
    assert peaks[4][0] - peaks[3][0] == peaks[3][0] - peaks[2][0] == each
    assert {peak for found in peaks.values() for peak in found[1:]} == {peaks[2][1]}
    assert peaks[2][0] > peaks[2][1]


def test_only_rank_0_has_an_optimizer() -> None:
    lists = program("data=3", "optimizer=adam", "clip_norm=1")
    assert ["optimizer" in held and held["optimizer"] > 0 for held in lists.resident] == [
        True,
        False,
        False,
    ]
    updates = [[i.task.op for i in listed if i.task.op in (Op.GRADIENT_NORM, Op.OPTIMIZER_STEP)]
               for listed in lists.ranks]  # fmt: skip
    assert updates == [[Op.GRADIENT_NORM, Op.OPTIMIZER_STEP], [], []]


def test_it_is_never_faster_than_sums_over_all() -> None:
    keys = ["model=mlp", "pipeline=1", "data=4", "preset=dgx-h100", "horizon=3"]
    scattered, plain = (
        predict(load(None, [*keys, *more])) for more in (["data_style=scatter-gather"], [])
    )
    assert scattered.iteration_time_s > plain.iteration_time_s
    assert [row.to_json() for row in scattered.staleness] == [
        row.to_json() for row in plain.staleness
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["data=2", "pipeline=2"],
            "parallel.pipeline = 2: with parallel.data_style = 'scatter-gather' every rank "
            "computes the whole model; allowed: 1",
        ),
        (
            ["data=1"],
            "parallel.data = 1: with parallel.data_style = 'scatter-gather' there is nobody to "
            "send to; allowed: 2 or more",
        ),
        (
            ["data=2", "zero=1"],
            "parallel.zero = 1: with parallel.data_style = 'scatter-gather' rank 0 has the "
            "optimizer; allowed: 0",
        ),
        (
            ["data=2", "model=gpt"],
            "workload.model = 'gpt': with parallel.data_style = 'scatter-gather' rank 0 computes "
            "the loss of what the others put out, so it must be a layer of its own; allowed: 'mlp'",
        ),
    ],
)
def test_refused_in_one_line(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        program(*keys)
    assert str(error.value) == message

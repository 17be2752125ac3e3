"""Gossip: what is written where, what it takes in closed form, and what is refused."""

from __future__ import annotations

import pytest

from simulator import ExperimentError, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.program.operations import Op
from small_buckets import BLOCK, BLOCKS, SMALL

GOSSIP = [*SMALL, "data_style=gossip", "microbatches=1"]
ONE = "parallel.bucket_mb=100"


def test_one_peer_a_step_sends_and_receives_once() -> None:
    """Written by hand: rank 0 of four sends to 1, then to 2, and receives from 3, then from 2."""
    settings = [*GOSSIP, ONE, "data=4", "topology=one-peer-exponential", "horizon=3"]
    program = lower(load(None, settings))
    labels = "0F0 0B0 0STEP 0SEND_P 0RECV_P 0MIX s1:0F0 s1:0B0 s1:0STEP s1:0SEND_P s1:0RECV_P"
    labels += " s1:0MIX s2:0F0 s2:0B0 s2:0STEP s2:0SEND_P s2:0RECV_P s2:0MIX"
    mine = program.ranks[0]
    assert [i.label for i in mine] == labels.split()
    assert [i.task.peer for i in mine if i.task.op is Op.SEND] == [1, 2, 1]
    assert [i.task.peer for i in mine if i.task.op is Op.RECV] == [3, 2, 3]
    for i in mine:
        if i.task.op is Op.MIX:
            assert i.task.coefficients == (0.5, 0.5)
            others = {o.task.op for o in i.after}
            assert others == {Op.OPTIMIZER_STEP, Op.SEND, Op.RECV}
            assert {o.step for o in i.after} == {i.step}


def test_every_bucket_is_mixed_before_its_stage_goes_on() -> None:
    keys = ["pipeline=2", "virtual_stages=2", "schedule=interleaved-1f1b", "microbatches=2"]
    settings = [*GOSSIP, *keys, "data=2", "topology=ring", "horizon=2"]
    program = lower(load(None, settings))
    for rank in program.ranks:
        order = [i for i in rank if i.task.op in (Op.MIX, Op.FORWARD)]
        mixed = {i.task.tensor for i in order if i.task.op is Op.MIX and i.step == 0}
        assert len(mixed) == BLOCKS // 2
        for place, i in enumerate(order):
            if i.task.op is Op.FORWARD and i.step == 1:
                before = {o.task.layers for o in order[:place] if o.task.op is Op.MIX}
                assert i.task.layers in before


def test_ranks_of_one_replica_have_their_own_neighbours() -> None:
    settings = [*GOSSIP, "pipeline=2", "data=3", "topology=ring", "microbatches=2"]
    experiment = load(None, settings)
    for i in lower(experiment):
        if i.task.name == "SEND_P":
            me, other = (experiment.mesh.coordinate(r) for r in (i.rank, i.task.peer))
            assert me["pipeline"] == other["pipeline"]
            assert me["data"] != other["data"]


def test_one_peer_takes_the_same_however_many_replicas_there_are() -> None:
    """α + V/B, and the mixing; an all-reduce has a term for each replica."""
    times = {}
    for style in ("gossip", "all-reduce"):
        for replicas in (4, 8):
            settings = [*SMALL, ONE, "microbatches=1", f"data={replicas}", f"data_style={style}"]
            settings += ["preset=dgx-a100-80gb", "horizon=6", "devices_per_node=8"]
            if style == "gossip":
                settings.append("topology=one-peer-exponential")
            times[style, replicas] = predict(load(None, settings)).iteration_time_s
    assert times["gossip", 8] == pytest.approx(times["gossip", 4], rel=1e-9)
    assert times["all-reduce", 8] > times["all-reduce", 4]


def test_the_time_of_a_step_is_its_passes_a_message_and_the_mixing() -> None:
    keys = [*SMALL, ONE, "microbatches=1", "preset=dgx-a100-80gb", "horizon=4"]
    experiment = load(None, [*keys, "data=4", "data_style=gossip", "topology=one-peer-exponential"])
    alone = predict(load(None, [*keys, "data=1"])).iteration_time_s
    program = lower(experiment)
    costs = costs_of(program, experiment, resolve(experiment))
    mine = program.ranks[0]
    message = next(i for i in mine if i.task.op is Op.SEND)
    mixing = next(i for i in mine if i.task.op is Op.MIX)
    assert message.task.nbytes == BLOCK * BLOCKS
    expected = alone + 4 * (costs.seconds(message) + costs.seconds(mixing))
    assert predict(experiment).iteration_time_s == pytest.approx(expected, rel=1e-9)


def test_push_sum_sends_a_weight_with_each_bucket_and_divides_by_it() -> None:
    keys = [*GOSSIP, ONE, "data=4", "topology=ring", "preset=dgx-a100-80gb"]
    times = {}
    for push in ("false", "true"):
        experiment = load(None, [*keys, f"push_sum={push}"])
        program = lower(experiment)
        costs = costs_of(program, experiment, resolve(experiment))
        (mixing,) = (i for i in program.ranks[0] if i.task.op is Op.MIX)
        assert mixing.task.nbytes == BLOCK * BLOCKS + 4 * (push == "true")
        assert {i.task.nbytes for i in program.ranks[0] if i.task.op is Op.SEND} == {
            mixing.task.nbytes
        }
        times[push] = costs.seconds(mixing)
    assert times["true"] > times["false"]


def test_weights_are_part_of_the_hash(tmp_path) -> None:
    hashes = set()
    for share in ("0.5", "0.25"):
        rest = 1 - float(share)
        (tmp_path / "w.csv").write_text(f"{share},{rest}\n{rest},{share}\n")
        settings = [*GOSSIP, "data=2", f"topology=csv:{tmp_path}/w.csv"]
        hashes.add(lower(load(None, settings)).hash())
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "'gossip': needs parallel.topology, which is not set"),
        (["topology=star"], "parallel.topology = 'star': allowed: ring, torus"),
        (["topology=torus", "data=3"], "3 replicas form no grid"),
        (
            ["topology=one-peer-exponential", "data=8", "horizon=2"],
            "run.horizon = 2: parallel.topology = 'one-peer-exponential' of 8 replicas has other "
            "neighbours in each of 3 steps; allowed: 3 or more",
        ),
        (
            ["data_style=all-reduce", "push_sum=true"],
            "parallel.push_sum = true: only for parallel.data_style = 'gossip', not 'all-reduce'",
        ),
        (["topology=ring", "zero=3"], "parallel.zero = 3: replicas share what is equal"),
        (["topology=ring", "data=1"], "there is one replica, and nothing to exchange"),
        (["topology=ring", "model=unit"], "workload.model = 'unit' has no parameters"),
        (
            ["topology=ring", "pipeline=2", "schedule=pipedream"],
            "parallel.schedule = 'pipedream': passes of several versions",
        ),
        (["topology=ring", "sync_period=2"], "only for parallel.data_style = 'local-sgd' or"),
        (["data_style=all-reduce", "topology=ring"], "only for parallel.data_style = 'gossip'"),
    ],
)
def test_what_does_not_compose_is_refused(settings: list[str], message: str) -> None:
    keys = ["model=mlp", "pipeline=1", "data=2", "data_style=gossip", "horizon=4", *settings]
    with pytest.raises(ExperimentError) as error:
        load(None, keys)
    assert message in str(error.value)

"""Sharded data parallelism: what is sent, what is held, when, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, Program, load, lower, predict
from simulator.cluster.catalogue import load_preset
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.pass_key import pass_key
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.csv_text import to_csv
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.tensors import TensorKind, TensorName
from simulator.strategies.gradients import parameter_layout
from simulator.strategies.schedules.registry import SCHEDULES, Plan
from simulator.workloads.describe import describe
from small_buckets import BLOCK, BLOCKS, SMALL, small

USES_WEIGHTS = (Op.FORWARD, Op.BACKWARD, Op.BACKWARD_INPUT)


def sent_bytes(program: Program, rank: int) -> float:
    """By a ring: (n-1)/n of what is gathered or scattered, twice that of an all-reduce."""
    factors = {Op.ALL_REDUCE: 2, Op.REDUCE_SCATTER: 1, Op.ALL_GATHER: 1}
    return sum(
        factors[i.task.op] * i.task.nbytes * (len(i.task.group) - 1) / len(i.task.group)
        for i in program.ranks[rank]
        if i.task.op in factors
    )


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("n", [2, 4])
def test_volume_of_stages_0_to_2(n: int, m: int) -> None:
    """Ψ parameters, n ranks: 2Ψ as without shards; gradients of every microbatch with 2
    (Rajbhandari et al. 2020, section 7)."""
    one = BLOCKS * BLOCK * (n - 1) / n
    for zero, factor in ((0, 2), (1, 2), (2, m + 1)):
        program = lower(small(data=n, microbatches=m, zero=zero))
        assert [sent_bytes(program, rank) for rank in range(n)] == [factor * one] * n


@pytest.mark.parametrize("prefetch", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_volume_of_stage_3(m: int, prefetch: int) -> None:
    """3Ψ a microbatch, but for what is held on where forward and backward turn."""
    one = BLOCK / 2
    program = lower(small(data=2, microbatches=m, zero=3, prefetch=prefetch))
    turns = 2 * m - 1
    gathers = 2 * m * BLOCKS - turns * (1 + prefetch // 2)
    assert sent_bytes(program, 0) == (gathers + m * BLOCKS) * one
    if (m, prefetch) == (1, 0):
        assert sent_bytes(program, 0) == (3 * BLOCKS - 1) * one


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_replicas_of_shard_sets_add_an_all_reduce_of_the_shard(zero: int) -> None:
    """Hybrid sharding: sets (0, 1) and (2, 3); 2·(r-1)/r of Ψ/z more for r sets of z ranks."""
    whole = lower(small(data=2, zero=zero, microbatches=2))
    hybrid = lower(small(data=4, zero=zero, zero_group=2, microbatches=2))
    more = BLOCKS * BLOCK / 2
    assert sent_bytes(hybrid, 3) - sent_bytes(whole, 1) == more
    for rank in range(4):
        groups = {(i.task.op, i.task.group) for i in hybrid.ranks[rank] if i.task.group}
        mine = (0, 1) if rank < 2 else (2, 3)
        assert groups == {
            (Op.REDUCE_SCATTER, mine),
            (Op.ALL_GATHER, mine),
            (Op.ALL_REDUCE, (rank % 2, rank % 2 + 2)),
        }


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_resident_bytes_are_those_of_the_table(optimizer: str) -> None:
    """Rajbhandari et al. 2020, figure 1, with K = 0, 1 or 2 times the parameters."""
    states = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}[optimizer]
    all_of_it, part = BLOCKS * BLOCK, BLOCKS * BLOCK // 4
    for zero in range(4):
        experiment = load(
            None,
            [*SMALL, "parallel.data=4", f"parallel.zero={zero}", f"workload.optimizer={optimizer}"],
        )
        expected = {
            "parameters": part if zero == 3 else all_of_it,
            "gradients": part if zero >= 2 else all_of_it,
            "optimizer": states * (part if zero >= 1 else all_of_it),
        }
        held = lower(experiment).resident
        assert held == [{name: n for name, n in expected.items() if n}] * 4


def test_a_bucket_that_does_not_divide_is_padded() -> None:
    program = lower(small(data=3, zero=3))
    part = -(-BLOCK // 4 // 3) * 4
    assert part * 3 > BLOCK
    assert program.resident[0] == {"parameters": BLOCKS * part, "gradients": BLOCKS * part}


def held_at_once(instructions: list[Instruction], kind: TensorKind) -> int:
    """Most bytes of tensors of this kind that the list holds at once."""
    held, most, sizes = Counter[TensorName](), 0, {}
    for instruction in instructions:
        for tensor in instruction.task.allocates:
            if tensor.name.kind is kind:
                held[tensor.name] += 1
                sizes[tensor.name] = tensor.nbytes
        most = max(most, sum(sizes[name] * count for name, count in held.items()))
        for name in instruction.task.frees:
            if name.kind is kind:
                held[name] -= 1
    assert not any(held.values())
    return most


@pytest.mark.parametrize("prefetch", [0, 1, 2, 3, 7])
def test_prefetched_parameters_are_held_one_more_each(prefetch: int) -> None:
    program = lower(small(data=2, zero=3, prefetch=prefetch, microbatches=2))
    for instructions in program.ranks:
        held = held_at_once(instructions, TensorKind.WHOLE_PARAMETERS)
        assert held == min(prefetch + 1, BLOCKS) * BLOCK
        assert held_at_once(instructions, TensorKind.GRADIENTS) == BLOCK


@pytest.mark.parametrize("bucket_mb", [0.1, 25.0], ids=["one bucket a block", "one bucket"])
def test_gradients_do_not_pile_up_behind_a_slow_network(bucket_mb: float) -> None:
    """At most those of two buckets are held: one that fills, one that is being reduced."""
    plan = ["parallel.data=2", "parallel.zero=2", f"parallel.bucket_mb={bucket_mb}"]
    plan += ["cluster.preset=laptop", "cluster.devices_per_node=1"]
    peaks = {}
    for microbatches in (2, 6):
        batch = [
            f"parallel.microbatches={microbatches}",
            f"workload.global_batch={8 * microbatches}",
        ]
        for gbit in (1000, 0.001):
            experiment = load(None, [*SMALL, *plan, *batch, f"cluster.node_bandwidth_gbit={gbit}"])
            timeline = predict(experiment, resolve(experiment)).timeline
            peaks[microbatches, gbit] = timeline.memory[0].peak
    fast, slow = ({peaks[microbatches, gbit] for microbatches in (2, 6)} for gbit in (1000, 0.001))
    assert len(fast) == len(slow) == 1  # of any number of microbatches
    assert slow.pop() - fast.pop() <= (BLOCK if bucket_mb < 1 else 0)


def test_gathers_hide_behind_passes() -> None:
    times = []
    for prefetch in (0, 1):
        experiment = small(data=2, zero=3, prefetch=prefetch, microbatches=2)
        timeline = predict(experiment, resolve(experiment)).timeline
        times.append(timeline.iteration_time)
    assert times[1] < times[0]


@st.composite
def sharded(draw: st.DrawFn) -> Experiment:
    schedule = draw(st.sampled_from(["gpipe", "1f1b", "zb-h1", "zb-v", "interleaved-1f1b"]))
    pipeline, v = draw(st.integers(1, 3)), 1
    if schedule in ("zb-v", "interleaved-1f1b"):
        v = 2
    m = draw(st.integers(1, 4))
    if SCHEDULES[schedule].refusal(Plan(pipeline, m, v)):
        m = 2 * pipeline
    data = draw(st.sampled_from([2, 3, 4]))
    zero = draw(st.integers(1, 3))
    keys = {
        "schedule": schedule,
        "pipeline": pipeline,
        "virtual_stages": v,
        "microbatches": m,
        "data": data,
        "zero": zero,
        "bucket_mb": draw(st.sampled_from([0.1, 0.2, 25])),
    }
    if data == 4:
        keys["zero_group"] = draw(st.sampled_from([2, 4]))
    if zero == 3:
        keys["prefetch"] = draw(st.integers(0, 9))
        keys["parameter_compression"] = draw(st.sampled_from(["none", "fp16", "int8"]))
    more = [f"parallel.{key}={value}" for key, value in keys.items()]
    clip = ["workload.clip_norm=1"] if draw(st.booleans()) else []
    return load(None, [*SMALL, "workload.layers=7", *more, *clip])


@given(sharded())
def test_any_sharded_program_gathers_and_frees_in_turn(experiment: Experiment) -> None:
    """At most one whole copy of a bucket, there whenever it is used; gradients of every
    microbatch once; the optimizer step after all of them."""
    program, parallel = lower(experiment), experiment.parallel
    for rank, instructions in enumerate(program.ranks):
        owner = {span: bucket for bucket in program.buckets[rank] for span in bucket.segments}
        copies: dict[TensorName, Instruction] = {}
        ready: set[TensorName] = set()  # gathered parameters whose gather a compute waited for
        scattered: Counter[TensorName] = Counter()
        for instruction in instructions:
            task = instruction.task
            bucket = owner.get(task.layers)
            for tensor in task.allocates:
                if tensor.name.kind is TensorKind.WHOLE_PARAMETERS:
                    assert tensor.name not in copies
                    copies[tensor.name] = instruction
            if bucket and task.op in USES_WEIGHTS and bucket.zero == 3:
                whole = bucket.whole_weights
                if copies[whole] in instruction.after:
                    ready.add(whole)
                assert whole in ready
            if task.op is Op.REDUCE_SCATTER:
                scattered[task.tensor] += 1
            for name in task.frees:
                if name.kind is TensorKind.WHOLE_PARAMETERS:
                    assert task.stream == COMPUTE_STREAM
                    del copies[name]
                    ready.discard(name)
            if task.op is Op.OPTIMIZER_STEP:
                names = {bucket.name for bucket in program.buckets[rank]}
                reductions = {i for i in instructions if i.task.tensor in names}
                assert {i for i in reductions if i.task.stage == task.stage} <= {*instruction.after}
        assert not copies
        times = parallel.microbatches if parallel.zero > 1 else 1
        assert scattered == {bucket.name: times for bucket in program.buckets[rank]}
        assert program.resident[rank]["gradients"] == sum(
            b.part_bytes if parallel.zero > 1 else b.nbytes for b in program.buckets[rank]
        )


def test_a_clipped_step_adds_up_the_norm_over_the_shards() -> None:
    program = lower(
        load(
            None,
            [*SMALL, "parallel.pipeline=2", "workload.clip_norm=1", "parallel.data=4",
             "parallel.zero=1", "parallel.zero_group=2"],
        )
    )  # fmt: skip
    for rank, instructions in enumerate(program.ranks):
        (total,) = [i for i in instructions if i.task.mnemonic == "REDUCE_NORM"]
        assert total.task.group == ((0, 1, 2, 3) if rank < 4 else (4, 5, 6, 7))


def test_parameters_are_gathered_after_the_step_unless_they_are_sharded() -> None:
    for zero in (1, 2):
        last = lower(small(data=2, zero=zero)).ranks[0][-BLOCKS - 1 :]
        assert [i.label for i in last] == ["0STEP", *(f"0UNSHARD.{b}" for b in range(BLOCKS))]
        assert all(i.after == (last[0],) for i in last[1:])
    assert lower(small(data=2, zero=3)).ranks[0][-1].label == "0STEP"


def test_a_sharded_program_can_be_read_back_as_a_schedule(tmp_path: Path) -> None:
    keys = {"data": 4, "zero": 3, "zero_group": 2, "microbatches": 2, "pipeline": 2}
    keys |= {"bucket_mb": 25}  # stages in one piece
    program, path = lower(small(**keys)), tmp_path / "schedule.csv"
    rows = to_csv(program).splitlines()[:2]  # of the first replica
    path.write_text("\n".join(rows))
    assert lower(small(**keys, schedule=f"csv:{path}")).hash() == program.hash()


def test_costs_of_shards() -> None:
    """A step reads and writes its part; what is gathered is half an all-reduce."""
    seconds = {}
    for zero in range(4):
        experiment = load(
            None, [*SMALL, "parallel.data=4", f"parallel.zero={zero}", "workload.optimizer=adam",
                   "cluster.preset=dgx-a100-80gb"],
        )  # fmt: skip
        program = lower(experiment)
        cluster = resolve(experiment)
        free = replace(cluster, kinds={"a100": replace(cluster.device, launch_s=0.0)})
        costs = costs_of(program, experiment, free)
        seconds[zero] = {i.label: costs.seconds(i) for i in program.ranks[0]}
    assert seconds[2]["0STEP"] == seconds[3]["0STEP"] < seconds[1]["0STEP"] < seconds[0]["0STEP"]
    assert seconds[1]["0B0.1"] == seconds[0]["0B0.1"] < seconds[2]["0B0.1"]
    reduce = seconds[0]["0REDUCE_GRAD.1"]
    start = load_preset("dgx-a100-80gb").library.start_s
    half = pytest.approx(start + (reduce - start) / 2)
    assert seconds[1]["0REDUCE_GRAD.1"] == seconds[3]["0UNSHARD_F0.1"] == half


def test_a_profile_tells_the_step_of_a_shard_from_a_whole_one() -> None:
    layers, workload = describe(small())[:1], Workload(clip_norm=1.0)
    plans = [Parallel(data=4, zero=zero) for zero in range(4)] + [
        Parallel(data=4, zero=2, zero_group=2)
    ]
    different = {
        Op.FORWARD: [0, 0, 0, 0, 0],
        Op.BACKWARD: [0, 0, 1, 1, 1],
        Op.BACKWARD_INPUT: [0, 0, 1, 1, 1],
        Op.BACKWARD_WEIGHT: [0, 0, 0, 0, 0],
        Op.GRADIENT_NORM: [0, 1, 1, 1, 2],
        Op.OPTIMIZER_STEP: [0, 1, 2, 2, 3],
    }
    for op, kinds in different.items():
        keys = [pass_key(op, layers, workload, plan) for plan in plans]
        assert [list(dict.fromkeys(keys)).index(key) for key in keys] == kinds


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"zero": 2},
            "parallel.zero = 2: with one replica there is nobody to share with; "
            "allowed: 0, or data, context or expert of 2 or more",
        ),
        (
            {"data": 6, "zero": 1, "zero_group": 4},
            "parallel.zero_group = 4: must be 2 or more and divide the replicas, "
            "data × context × expert = 6; "
            "nearest that works: 3",
        ),
        (
            {"data": 4, "zero": 1, "zero_group": 1},
            "parallel.zero_group = 1: must be 2 or more and divide the replicas, "
            "data × context × expert = 4; "
            "nearest that works: 2",
        ),
        (
            {"data": 4, "zero": 3, "zero_group": 8},
            "parallel.zero_group = 8: must be 2 or more and divide the replicas, "
            "data × context × expert = 4; "
            "nearest that works: 4",
        ),
        (
            {"context": 4, "zero": 1, "zero_group": 3},
            "parallel.zero_group = 3: must be 2 or more and divide the replicas, "
            "data × context × expert = 4; nearest that works: 2",
        ),
        (
            {"data": 2, "context": 2, "zero": 3, "zero_group": 8},
            "parallel.zero_group = 8: must be 2 or more and divide the replicas, "
            "data × context × expert = 4; nearest that works: 4",
        ),
        (
            {"data": 4, "zero_group": 2},
            "parallel.zero_group = 2: only for parallel.zero = 1, 2 or 3, not 0",
        ),
        (
            {"data": 2, "zero": 2, "prefetch": 1},
            "parallel.prefetch = 1: only for parallel.zero = 3, not 2",
        ),
        (
            {"data": 2, "pipeline": 2, "zero": 1, "microbatches": 4, "schedule": "pipedream"},
            "parallel.zero = 1: parallel.schedule = 'pipedream' keeps whole weights of several "
            "versions; allowed: synchronous schedules",
        ),
    ],
)
def test_what_cannot_be_sharded_is_refused(keys: dict[str, object], message: str) -> None:
    sets = [f"parallel.{key}={value}" for key, value in keys.items()]
    model = [] if "context" in keys else SMALL
    with pytest.raises(ExperimentError) as error:
        lower(load(None, [*model, "parallel.pipeline=1", *sets]))
    assert str(error.value) == message


@pytest.mark.parametrize("plan", [{}, {"zero_group": 2}, {"pipeline": 2}])
def test_effort_grows_with_the_ranks(plan: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ranks share a bucket is found once for all of them, not once for each."""
    calls = Counter[str]()

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: object) -> object:
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, counted)

    count(parameter_layout, "shard_sets")
    count(parameter_layout.ParameterLayout, "_shards_of")
    effort = []
    for data in (8, 16, 32):
        calls.clear()
        lower(small(data=data, zero=1, **plan))
        # Of each stage over the axes that are wide, and over all that replicate.
        assert calls["shard_sets"] == 2 * plan.get("pipeline", 1)
        effort.append(calls["_shards_of"])
    assert effort[2] - effort[1] == 2 * (effort[1] - effort[0]) > 0


def test_a_folded_plan_looks_at_its_own_groups_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    sets = parameter_layout.shard_sets
    counted = lambda *args: found.append(1) or sets(*args)  # noqa: E731
    monkeypatch.setattr(parameter_layout, "shard_sets", counted)
    program = lower(small(data=4096, zero=1), [0] * 4096)
    assert len(found) == 2
    assert program.buckets[0][0].shards == tuple(range(4096))


def test_a_model_without_parameters_is_not_sharded() -> None:
    with pytest.raises(ExperimentError, match=r"^parallel.zero = 1: .* no parameters; allowed: 0$"):
        load(None, ["workload.model=unit", "parallel.data=2", "parallel.zero=1"])

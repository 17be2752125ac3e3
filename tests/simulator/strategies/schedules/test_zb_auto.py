"""The searched schedule: its clock against the engine, its limit, and what it must not lose to."""

from __future__ import annotations

import random
from itertools import product
from math import inf
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, load, lower, parse, predict
from simulator.analysis.metrics import peak_inflight
from simulator.cluster.resolve import resolve
from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import MESSAGES, Op
from simulator.strategies.lowering import begin
from simulator.strategies.schedules import zb_auto
from simulator.strategies.schedules.orders.longest_path import (
    StageCost,
    fits,
    letters_of,
    makespan,
    passes_of,
)
from simulator.strategies.schedules.passes import once_a_step
from simulator.strategies.schedules.placements import loop, one_stage_a_rank
from simulator.strategies.schedules.registry import SCHEDULES, Plan
from simulator.strategies.stages.partition import partition_layers

HAND_MADE = ("naive", "gpipe", "1f1b", "eager-1f1b", "zb-h1", "zb-h2")
EQUAL = (1.0, 1.0, 1.0)

quarters = st.integers(0, 12).map(lambda n: n / 4)


class Given:
    """A schedule of given orders."""

    SUMMARY, placement, refusal = "", staticmethod(loop), staticmethod(one_stage_a_rank)
    updates = staticmethod(once_a_step)

    def __init__(self, orders: list[str]):
        self.orders = orders

    def order(self, plan: Plan, rank: int):
        return passes_of(self.orders[rank], rank)


class StageCosts(Costs):
    """Seconds by rank and operation, for the engine."""

    def __init__(self, costs: list[StageCost], p2p: float):
        self.capacities: dict[str, float] = {}
        self.costs, self.p2p = costs, p2p

    def seconds(self, instruction: Instruction) -> float:
        op = instruction.task.op
        if op in MESSAGES:
            return self.p2p
        f, i, w = self.costs[instruction.rank]
        return {"F": f, "I": i, "W": w, "B": i + w}.get(op.value, 0.0)


def unit(p: int, m: int, schedule: str, **parallel):
    keys = {"pipeline": p, "microbatches": m, "schedule": schedule, **parallel}
    return parse({"workload": {"model": "unit"}, "parallel": keys})


def plan_of(experiment: Experiment) -> Plan:
    """Return what the schedule is given: seconds of `unit`, else FLOPs."""
    return partition_layers(begin(experiment)).plan


def engine_makespan(orders: list[str], costs: list[StageCost], p2p: float) -> float:
    microbatches = orders[0].count("F")
    with patch.dict(SCHEDULES, {"given": Given(orders)}):
        try:
            program = lower(unit(len(orders), microbatches, "given"))
        except ProgramError as error:
            assert "deadlock" in str(error)
            return inf
    return simulate(program, StageCosts(costs, p2p)).iteration_time


def handmade(name: str, p: int, m: int) -> list[str]:
    return [letters_of(SCHEDULES[name].order(Plan(p, m), rank)) for rank in range(p)]


@st.composite
def orders_of(draw, p: int, m: int) -> list[str]:
    """Any legal order on every rank; together they may deadlock."""
    rng = draw(st.randoms(use_true_random=False))
    eagerness = draw(st.floats(0.1, 3))
    whole = draw(st.booleans())
    orders = []
    for _ in range(p):
        order, f, i, w = "", 0, 0, 0
        while w < m:
            letters = "F" * (f < m) + ("B" if whole else "I") * (i < f) + "W" * (w < i)
            weights = [eagerness if letter == "F" else 1.0 for letter in letters]
            letter = rng.choices(letters, weights)[0]
            order += letter
            f += letter == "F"
            i += letter in "IB"
            w += letter in "WB"
        orders.append(order)
    return orders


@given(st.data(), st.integers(1, 4), st.integers(1, 5), quarters)
def test_the_evaluator_agrees_with_the_engine(data, p: int, m: int, p2p: float) -> None:
    """Also where messages take longer than passes, and about which orders deadlock."""
    costs = data.draw(st.lists(st.tuples(quarters, quarters, quarters), min_size=p, max_size=p))
    orders = data.draw(orders_of(p, m))
    assert makespan(orders, costs, p2p) == engine_makespan(orders, costs, p2p)


@pytest.mark.parametrize("name", HAND_MADE)
@pytest.mark.parametrize("p2p", [0.0, 0.3, 2.5])
def test_the_evaluator_agrees_on_hand_made_schedules(name: str, p2p: float) -> None:
    for p, m in ((1, 3), (2, 5), (4, 8), (5, 3)):
        orders = handmade(name, p, m)
        costs = [(0.7 + 0.1 * rank, 1.1, 0.9 - 0.1 * rank) for rank in range(p)]
        assert makespan(orders, costs, p2p) == engine_makespan(orders, costs, p2p)


def test_orders_that_wait_for_each_other_take_for_ever() -> None:
    assert makespan(["FIWFIW", "FFIWIW"], [EQUAL, EQUAL], 0.0) == inf


@pytest.mark.parametrize(
    ("order", "limit", "expected"),
    [
        ("FFIWIW", 2, True),
        ("FFIWIW", 1.9, False),
        ("FIWFIW", 1, True),
        ("FIFWIW", 2, True),
        ("IFW", 9, False),
        ("FWI", 9, False),
        ("FBFB", 1, True),
        ("FFIBW", 9, False),  # B of microbatch 1 would come before W of microbatch 0
    ],
)
def test_fits(order: str, limit: float, expected: bool) -> None:
    assert fits(order, limit) is expected


@given(
    st.data(),
    st.integers(1, 5),
    st.integers(1, 10),
    st.sampled_from([0.0, 0.25, 1.5]),
    st.one_of(st.none(), st.floats(1, 12)),
)
def test_legal_within_the_limit_and_never_worse(data, p, m, p2p, limit) -> None:
    costs = tuple(data.draw(st.tuples(quarters, quarters, quarters)) for _ in range(p))
    plan = Plan(p, m, 1, costs, p2p, limit)
    assert zb_auto.refusal(plan) is None
    found = [zb_auto.order(plan, rank) for rank in range(p)]
    allowed = 2 * p - 1 if limit is None else limit
    orders = [letters_of(passes) for passes in found]
    for rank, passes in enumerate(found):
        assert {step.stage for step in passes} == {rank}
        for b in range(m):
            mine = [step.op.value for step in passes if step.microbatch == b]
            assert mine in (["F", "I", "W"], ["F", "B"])
        assert fits(orders[rank], allowed)
    reached = engine_makespan(orders, list(costs), p2p)
    for name in HAND_MADE:
        rival = handmade(name, p, m)
        if all(fits(order, allowed) for order in rival):
            assert reached <= makespan(rival, costs, p2p) * (1 + 1e-6), name


@pytest.mark.parametrize("limit", [1, 2.5, 4, 5, 7, None])
@pytest.mark.parametrize("p2p", [0.0, 0.004, 0.03])
def test_the_timeline_respects_the_limit(limit: float | None, p2p: float) -> None:
    more = {} if limit is None else {"memory_limit": limit}
    experiment = parse(
        {
            "workload": {"model": "unit", "backward_weight": 0.008, "p2p": p2p},
            "parallel": {"pipeline": 4, "microbatches": 9, "schedule": "zb-auto", **more},
        }
    )
    prediction = predict(experiment, resolve(experiment))
    assert max(peak_inflight(prediction.timeline)) <= (limit or 7)
    plan = plan_of(experiment)
    reached = makespan(zb_auto.search(plan), plan.costs, plan.p2p)
    assert prediction.iteration_time_s == reached


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("m", [16, 32])
def test_equal_costs(p: int, m: int) -> None:
    """ZB-H1's makespan with its memory, p, and ZB-H2's with its own: no rank could finish
    sooner, so both are the optimum, 3m + p-1."""
    for limit in (p, 2 * p - 1, None):
        reached = makespan(zb_auto.search(Plan(p, m, memory_limit=limit)), [EQUAL] * p, 0.0)
        assert reached == 3 * m + p - 1
    assert makespan(handmade("zb-h2", p, m), [EQUAL] * p, 0.0) == 3 * m + p - 1


def test_more_memory_buys_time_where_messages_do() -> None:
    reached = [
        makespan(zb_auto.search(Plan(4, 16, p2p=1.5, memory_limit=limit)), [EQUAL] * 4, 1.5)
        for limit in (1, 2, 3, 4, 6, 7, 10)
    ]
    assert reached == sorted(reached, reverse=True)
    assert len(set(reached)) == len(reached)


def legal(m: int, limit: int, order: str = "") -> list[str]:
    if len(order) == 3 * m:
        return [order]
    grown = [order + letter for letter in "FIW" if order.count(letter) < m]
    return [whole for more in grown if fits(more, limit) for whole in legal(m, limit, more)]


@pytest.mark.parametrize("seed", range(12))
def test_close_to_the_best_of_all_orders(seed: int) -> None:
    """Two ranks and three microbatches have at most 42² pairs of orders."""
    rng = random.Random(seed)
    costs = tuple(tuple(rng.choice([0.5, 0.8, 1, 1.3, 2]) for _ in range(3)) for _ in range(2))
    limit, p2p = rng.choice([1, 2, 3]), rng.choice([0.0, 0.3, 1.7])
    best = min(makespan(pair, costs, p2p) for pair in product(legal(3, limit), repeat=2))
    reached = makespan(zb_auto.search(Plan(2, 3, 1, costs, p2p, limit)), costs, p2p)
    assert reached <= best * 1.02


def test_neighbours_are_swapped_where_that_is_faster() -> None:
    plan = Plan(2, 4, 1, ((0.5, 1.0, 2.0), (1.0, 1.0, 0.5)), 1.5, 4)
    tried = zb_auto._candidates(plan, plan.costs, 4)
    assert min(makespan(orders, plan.costs, 1.5) for orders in tried) == 19.0
    assert makespan(zb_auto.search(plan), plan.costs, 1.5) == 17.5


def test_the_same_every_time() -> None:
    costs = tuple((1 + rank / 7, 1.3, 0.8) for rank in range(4))
    plan = Plan(4, 8, 1, costs, 0.4, 5)
    first = zb_auto.search(plan)
    zb_auto.search.cache_clear()
    assert zb_auto.search(plan) == first


def test_costs_are_those_of_the_experiment_alone() -> None:
    """Seconds of `unit`, else FLOPs: the same program whatever it is predicted for."""
    keys = ["parallel.schedule=zb-auto", "parallel.pipeline=3", "workload.layers=5"]
    plain = load(None, keys)
    assert plan_of(plain).p2p == 0.0
    assert all(min(cost) > 1e6 for cost in plan_of(plain).costs)
    other = load(None, [*keys, "cluster.preset=laptop", "run.pace=3.0"])
    assert lower(plain).hash() == lower(other).hash()
    timed = load(None, [*keys[:2], "workload.model=unit", "workload.p2p=0.5"])
    assert plan_of(timed).costs == ((0.01, 0.01, 0.01),) * 3
    assert plan_of(timed).p2p == 0.5


def test_splits_the_backward_pass_where_that_helps() -> None:
    program = lower(unit(4, 8, "zb-auto"))
    assert {i.task.op for i in program} & {Op.BACKWARD_INPUT, Op.BACKWARD} == {Op.BACKWARD_INPUT}
    alone = lower(unit(1, 8, "zb-auto"))  # one rank: nothing to gain
    assert {i.task.op for i in alone} & {Op.BACKWARD_INPUT, Op.BACKWARD} == {Op.BACKWARD}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"memory_limit": 0.5}, r"parallel\.memory_limit = 0\.5: allowed: 1 or more"),
        ({"memory_limit": "much"}, r"parallel\.memory_limit = 'much': allowed: a number"),
        ({"memory_limit": 4, "schedule": "zb-h1"}, r"memory_limit = 4: only for .*'zb-auto'"),
        ({"virtual_stages": 2}, r"virtual_stages = 2; allowed: 1"),
    ],
)
def test_refusals_are_one_line(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        lower(unit(2, 4, **{"schedule": "zb-auto", **keys}))
    assert "\n" not in str(caught.value)


def test_a_limit_below_one_microbatch_cannot_be_met() -> None:
    assert "memory_limit = 0.9; allowed: 1 or more" in str(
        zb_auto.refusal(Plan(2, 4, memory_limit=0.9))
    )


def test_the_search_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs is passes put in order and passes walked."""
    scheduled, walked = [], []

    def counted(function, counts):
        def call(*arguments):
            answer = function(*arguments)
            counts.append(sum(map(len, answer if counts is scheduled else arguments[0])))
            return answer

        return call

    monkeypatch.setattr(zb_auto, "greedy", counted(zb_auto.greedy, scheduled))
    monkeypatch.setattr(zb_auto, "makespan", counted(zb_auto.makespan, walked))
    costs = tuple((1.0, 1.1 + 0.05 * rank, 0.8) for rank in range(8))
    zb_auto.search.cache_clear()
    zb_auto.search(Plan(8, 32, 1, costs, 0.3, 10))
    candidates = len(scheduled) + len(zb_auto.HAND_MADE)
    passes = 3 * 8 * 32
    assert 0 < sum(scheduled) < zb_auto.MOST_SCHEDULED + passes
    assert 0 < sum(walked) <= zb_auto.MOST_SWAPPED + candidates * passes

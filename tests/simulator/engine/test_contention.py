"""Max-min fair speeds, and processor sharing worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.resource import Resource, ResourceKind
from simulator.engine.contention import Demand, SharedResources, fair_rates, rates_of_one

EPSILON = 1e-9
A, B, C = RESOURCES = [Resource(ResourceKind.DEVICE, number) for number in range(3)]

demands = st.lists(
    st.lists(
        st.tuples(st.sampled_from(RESOURCES), st.integers(0, 8).map(lambda n: n / 4)),
        max_size=3,
        unique_by=lambda use: use[0],
    ).map(tuple),
    max_size=8,
)
capacities = st.fixed_dictionaries({name: st.floats(0.125, 10.0) for name in RESOURCES})


@given(demands, capacities, st.data())
def test_rates_are_max_min_fair(
    demands: list[Demand], capacities: dict[Resource, float], data: st.DataObject
) -> None:
    weights = [data.draw(st.sampled_from([0.25, 0.5, 1.0, 1.5])) for _ in demands]
    rates = fair_rates(demands, capacities, weights)
    levels = [rate / weight for rate, weight in zip(rates, weights, strict=True)]
    assert all(0 < rate <= 1 + EPSILON for rate in rates)
    load = {
        name: sum(
            rate * dict(demand).get(name, 0.0) for rate, demand in zip(rates, demands, strict=True)
        )
        for name in capacities
    }
    assert all(load[name] <= capacities[name] + EPSILON for name in capacities)
    for rate, level, demand in zip(rates, levels, demands, strict=True):
        if rate >= 1 - EPSILON:
            continue
        # slowed: some resource it uses is full, and for its weight nobody there is faster
        assert any(
            amount > 0
            and load[name] >= capacities[name] - EPSILON
            and all(
                other <= level + EPSILON
                for other, theirs in zip(levels, demands, strict=True)
                if dict(theirs).get(name, 0.0) > 0
            )
            for name, amount in demand
        )


@given(
    st.lists(st.tuples(st.floats(0.01, 4.0), st.sampled_from([0.25, 0.5, 1.0, 1.5])), min_size=1),
    st.floats(0.125, 10.0),
)
def test_rates_of_one_resource_are_fair(users: list[tuple[float, float]], capacity: float) -> None:
    amounts, weights = ([user[column] for user in users] for column in (0, 1))
    expected = fair_rates([((A, amount),) for amount in amounts], {A: capacity}, weights)
    assert rates_of_one(amounts, capacity, weights) == pytest.approx(expected, rel=1e-12)


@given(demands, capacities, st.randoms())
def test_rates_do_not_depend_on_the_order(demands, capacities, random) -> None:
    order = list(range(len(demands)))
    random.shuffle(order)
    rates = fair_rates(demands, capacities)
    shuffled = fair_rates([demands[index] for index in order], capacities)
    assert shuffled == pytest.approx([rates[index] for index in order], rel=1e-9)


@pytest.mark.parametrize(
    ("demands", "capacities", "expected"),
    [
        ([], {A: 1}, []),
        ([()], {A: 1}, [1.0]),
        ([((A, 1),)], {}, [1.0]),  # what is not named is unlimited
        ([((A, 1),)] * 4, {A: 2}, [0.5] * 4),
        ([((A, 1),)] * 2, {A: 2}, [1.0] * 2),
        ([((A, 4),)], {A: 1}, [0.25]),
        # one speed for all, whatever they use
        ([((A, 3),), ((A, 1),)], {A: 2}, [0.5, 0.5]),
        # the middle one is held by the tight link; the third takes what it leaves
        ([((A, 1),), ((A, 1), (B, 1)), ((B, 1),)], {A: 1, B: 1.25}, [0.5, 0.5, 0.75]),
        # named twice is used twice
        ([((A, 1), (A, 1))], {A: 1}, [0.5]),
    ],
)
def test_rates_by_hand(demands, capacities, expected: list[float]) -> None:
    assert fair_rates(demands, capacities) == expected


def finishing_times(
    activities: list[tuple[float, float, Demand]], capacities: dict[Resource, float]
) -> list[float]:
    """When activities of (start, seconds, demand) end."""
    environment = simpy.Environment()
    shared = SharedResources(environment, capacities)
    ends = [0.0] * len(activities)

    def begin(index: int) -> None:
        _, seconds, demand = activities[index]
        shared.start(seconds, demand, lambda now: ends.__setitem__(index, now))

    for index, (time, _, _) in enumerate(activities):
        timeout = environment.timeout(time)
        timeout.callbacks.append(lambda _, index=index: begin(index))
    environment.run()
    return ends


ONE: Demand = ((A, 1.0),)


@pytest.mark.parametrize(
    ("activities", "cores", "expected"),
    [
        ([(0, 3, ONE)] * 4, 2, [6.0] * 4),  # four on two cores: twice as long
        ([(0, 3, ONE)] * 2, 2, [3.0] * 2),
        ([(1, 2, ONE)], 1, [3.0]),
        # A alone 0-1, shares 1-3 (1 s done), ends at 3; B has 1 s left, alone
        ([(0, 2, ONE), (1, 2, ONE)], 1, [3.0, 4.0]),
        # the short one ends at 2, then the long one is alone
        ([(0, 1, ONE), (0, 3, ONE)], 1, [2.0, 4.0]),
        # C comes when A and B are half way: thirds from 2 to 5, A and B end, C has 1 s left
        ([(0, 2, ONE), (0, 2, ONE), (2, 2, ONE)], 1, [5.0, 5.0, 6.0]),
        # an activity that uses nothing is not slowed
        ([(0, 2, ONE), (0, 2, ONE), (0, 2, ())], 1, [4.0, 4.0, 2.0]),
        # half a core beside a whole one on one core: both at 2/3
        ([(0, 2, ONE), (0, 2, ((A, 0.5),))], 1, [3.0, 3.0]),
        # one comes exactly when the other leaves: they never meet
        ([(0, 2, ONE), (2, 2, ONE)], 1, [2.0, 4.0]),
    ],
)
def test_processor_sharing_by_hand(activities, cores: float, expected: list[float]) -> None:
    assert finishing_times(activities, {A: cores}) == pytest.approx(expected, rel=1e-12)


def test_two_nodes_do_not_slow_each_other() -> None:
    on = [((A, 1.0),), ((B, 1.0),)]
    activities = [(0, 2, on[0]), (0, 2, on[0]), (0, 2, on[1])]
    assert finishing_times(activities, {A: 1, B: 1}) == [4.0, 4.0, 2.0]
    both: Demand = (*on[0], *on[1])
    activities = [(0, 2, on[0]), (0, 2, both), (0, 2, on[1])]
    assert finishing_times(activities, {A: 1, B: 4}) == [4.0, 4.0, 2.0]


jobs = st.lists(
    st.tuples(st.integers(0, 40).map(lambda n: n / 8), st.integers(1, 40).map(lambda n: n / 8)),
    min_size=1,
    max_size=8,
)


@given(jobs, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_a_core_is_never_idle_while_there_is_work(jobs, cores: float) -> None:
    """All of one kind: as many cores are busy as there are activities, up to all."""
    ends = finishing_times([(start, seconds, ONE) for start, seconds in jobs], {A: cores})
    spans = [(start, end) for (start, _), end in zip(jobs, ends, strict=True)]
    moments = sorted({time for span in spans for time in span})
    done = 0.0
    for begin, end in pairwise(moments):
        active = sum(a <= begin and end <= b for a, b in spans)
        done += min(active, cores) * (end - begin)
    assert done == pytest.approx(sum(seconds for _, seconds in jobs), rel=1e-9)
    assert all(
        end - start >= seconds * max(1.0, 1 / cores) - EPSILON
        for (start, seconds), end in zip(jobs, ends, strict=True)
    )

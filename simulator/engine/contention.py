"""Shared resources: activities that overlap slow each other.

One mechanism for host cores, links and devices: an activity needs an amount of each of
some resources to run at full speed; all activities speed up together, each in proportion
to its weight, until it runs at full speed or a resource is used up (weighted max-min
fairness by progressive filling, Bertsekas & Gallager 1992, section 6.5.2). With one
resource that is processor sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from operator import attrgetter

import simpy

from simulator.cluster.resource import Resource

Demand = tuple[tuple[Resource, float], ...]
"""Pairs of a resource and the amount that an activity uses of it at full speed."""

TEXT = attrgetter("text")
"""The order of resources: of those that are used up at once, the first stops its activities."""

ROUNDING = 1e-9
"""The share of a capacity by which sums of demands may exceed it."""


def fair_rates(
    demands: Sequence[Demand],
    capacities: Mapping[Resource, float],
    weights: Sequence[float] | None = None,
) -> list[float]:
    """Return the speed of each activity, between 0 and 1, that max-min fairness gives it.

    Args:
        demands: for each activity, amounts in the unit of the resource's capacity.
        capacities: the capacity of each resource; one that is not there is unlimited.
        weights: the weight of each activity, above 0; None: all are equal.
    """
    weights = weights or [1.0] * len(demands)
    rates = [0.0] * len(demands)
    users: dict[Resource, list[tuple[int, float]]] = {}  # with what each adds to the load
    for index, demand in enumerate(demands):
        for resource, amount in demand:
            if resource in capacities and amount > 0:
                users.setdefault(resource, []).append((index, amount * weights[index]))
    users = {resource: users[resource] for resource in sorted(users, key=TEXT)}
    left = {resource: capacities[resource] for resource in users}
    load = {resource: _load(mine) for resource, mine in users.items()}
    growing = dict.fromkeys(range(len(demands)))
    level = 0.0
    while growing:
        heaviest = max([weights[index] for index in growing])
        rise = 1.0 / heaviest - level
        tight = None
        for resource, amount in load.items():
            if left[resource] / amount < rise:
                rise, tight = left[resource] / amount, resource
        level += rise
        for resource, amount in load.items():
            left[resource] -= rise * amount
        if tight is None:
            stopped = [index for index in growing if weights[index] == heaviest]
        else:
            stopped = list(dict.fromkeys(index for index, _ in users[tight]))
        for index in stopped:
            rates[index] = min(weights[index] * level, 1.0)
            del growing[index]
        for resource in {
            resource for index in stopped for resource, _ in demands[index]
        } & load.keys():
            users[resource] = [user for user in users[resource] if user[0] in growing]
            load[resource] = _load(users[resource])
            if not users[resource]:
                del load[resource]
    return rates


def _load(users: Iterable[tuple[int, float]]) -> float:
    """Return the sum of amounts, added one by one, which `sum` does in some versions only."""
    load = 0.0
    for _, amount in users:
        load += amount
    return load


def rates_of_one(
    amounts: Sequence[float], capacity: float, weights: Sequence[float]
) -> list[float]:
    """Return the `fair_rates` of activities that all use one short resource, and no other."""
    rates = [0.0] * len(amounts)
    growing: Sequence[int] = range(len(amounts))
    left, level = capacity, 0.0
    while growing:
        load, heaviest = 0.0, 0.0
        for index in growing:
            weight = weights[index]
            load += amounts[index] * weight
            if weight > heaviest:
                heaviest = weight
        rise = 1.0 / heaviest - level
        is_tight = left / load < rise
        if is_tight:
            rise = left / load
        level += rise
        left -= rise * load
        for index in growing:
            if is_tight or weights[index] == heaviest:
                rates[index] = min(weights[index] * level, 1.0)
        growing = [] if is_tight else [n for n in growing if weights[n] != heaviest]
    return rates


class SharedResources:
    """Runs activities on a simpy clock, each at its fair speed.

    A resource can slow somebody only while all that use it, at full speed, need more than
    there is. So when an activity begins or ends, speeds are found anew only for those that
    it is joined to by such resources.

    Args:
        environment: the clock, in seconds.
        capacities: the amount that there is of each resource.
    """

    def __init__(self, environment: simpy.Environment, capacities: Mapping[Resource, float]):
        self.environment = environment
        self.capacities = dict(capacities)
        self._users: dict[Resource, dict[int, Activity]] = {name: {} for name in capacities}
        self._load = dict.fromkeys(capacities, 0.0)
        self._limited: dict[Demand, Demand] = {}
        self._active: dict[int, Activity] = {}
        self._queue: list[tuple[float, int]] = []  # (end, number); outdated ones stay
        self._number = 0
        self._alarm = float("inf")
        self._changed: list[Activity] = []  # whose speeds are to be found
        self._is_ending = False

    def start(
        self, seconds: float, demand: Demand, done: Callable[[float], None], weight: float = 1.0
    ) -> Activity:
        """Begin an activity that takes `seconds` at full speed; call `done(time)` at its end."""
        self._number += 1
        now = self.environment.now
        activity = Activity(self._number, seconds, self.limited(demand), weight, done, now)
        self._active[self._number] = activity
        is_short = False
        for resource, amount in activity.demand:
            self._users[resource][self._number] = activity
            self._load[resource] += amount
            is_short = is_short or self._is_short(resource)
        if is_short:
            self._changed.append(activity)
        else:
            activity.rate, activity.end = 1.0, now + seconds
            heappush(self._queue, (activity.end, activity.number))
        if not self._is_ending:
            self._settle()
        return activity

    def _settle(self) -> None:
        """Find the speeds that have changed, and set an alarm for the next end of an activity."""
        if self._changed:
            changed, self._changed = self._changed, []
            self._replan(changed)
        self._set_alarm()

    def limited(self, demand: Demand) -> Demand:
        """Return what a demand has of resources that there are, each once."""
        if demand not in self._limited:
            found: dict[Resource, float] = {}
            for resource, amount in demand:
                if amount > 0 and resource in self._users:
                    found[resource] = found.get(resource, 0.0) + amount
            self._limited[demand] = tuple(found.items())
        return self._limited[demand]

    def is_used(self, resource: Resource) -> bool:
        """Tell whether an activity is using a resource."""
        return bool(self._users[resource])

    def _is_short(self, resource: Resource) -> bool:
        return self._load[resource] > self.capacities[resource] * (1 + ROUNDING)

    def _replan(self, changed: Iterable[Activity]) -> None:
        """Find new speeds for `changed` and all that they are joined to."""
        joined = {activity.number: activity for activity in changed}
        stack, scarce = list(joined.values()), {}
        while stack:
            for resource, _ in stack.pop().demand:
                if resource not in scarce and self._is_short(resource):
                    scarce[resource] = self.capacities[resource]
                    for number, other in self._users[resource].items():
                        if number not in joined:
                            joined[number] = other
                            stack.append(other)
        activities = [joined[number] for number in sorted(joined)]
        now = self.environment.now
        for activity, rate in zip(activities, self._rates(activities, scarce), strict=True):
            if rate != activity.rate:
                activity.left = activity.left_at(now)
                activity.since, activity.rate = now, rate
                activity.end = now + activity.left / rate if rate > 0 else float("inf")
                heappush(self._queue, (activity.end, activity.number))

    def _rates(
        self, activities: Sequence[Activity], scarce: Mapping[Resource, float]
    ) -> Sequence[float]:
        """Return the speeds of activities that are joined by some resources."""
        if not scarce:
            return [1.0] * len(activities)
        weights = [activity.weight for activity in activities]
        if len(scarce) == 1:
            ((only, capacity),) = scarce.items()
            if len(activities) == len(self._users[only]):
                amounts = [
                    amount
                    for activity in activities
                    for resource, amount in activity.demand
                    if resource == only
                ]
                if len(amounts) == len(activities):
                    return rates_of_one(amounts, capacity, weights)
        return fair_rates([activity.demand for activity in activities], scarce, weights)

    def _set_alarm(self) -> None:
        """Set an alarm for the next end of an activity."""
        while self._queue and self._is_outdated(*self._queue[0]):
            heappop(self._queue)
        if self._queue and self._queue[0][0] != self._alarm and self._queue[0][0] < float("inf"):
            first = self._alarm = self._queue[0][0]
            timeout = self.environment.timeout(first - self.environment.now)
            timeout.callbacks.append(lambda _: self._on_alarm(first))

    def _is_outdated(self, end: float, number: int) -> bool:
        activity = self._active.get(number)
        return activity is None or activity.end != end

    def _on_alarm(self, first: float) -> None:
        if first != self._alarm:
            return  # something ends earlier, or this one later: another alarm is set
        finished: list[Activity] = []
        while self._queue and self._queue[0][0] <= first:
            end, number = heappop(self._queue)
            if not self._is_outdated(end, number):
                finished.append(self._active.pop(number))
        freed: dict[int, Activity] = {}
        for activity in finished:
            for resource, amount in activity.demand:
                users = self._users[resource]
                del users[activity.number]
                if self._is_short(resource):
                    freed |= users
                self._load[resource] = self._load[resource] - amount if users else 0.0
        self._changed += [other for number, other in freed.items() if number in self._active]
        self._is_ending = True  # what begins at this moment changes speeds, too: once for all
        for activity in sorted(finished, key=lambda activity: activity.number):
            activity.done(self.environment.now)
        self._is_ending = False
        self._alarm = float("inf")
        self._settle()


class Activity:
    """An activity that uses shared resources for a while."""

    __slots__ = ("number", "left", "demand", "weight", "done", "since", "rate", "end")

    def __init__(
        self,
        number: int,
        left: float,
        demand: Demand,
        weight: float,
        done: Callable[[float], None],
        now: float,
    ):
        self.number = number
        self.left = left  # seconds at full speed, at `since`
        self.demand = demand
        self.weight = weight
        self.done = done
        self.since = now
        self.rate = 0.0
        self.end = float("inf")

    def left_at(self, now: float) -> float:
        """Return the seconds at full speed that are left of it."""
        return max(self.left - (now - self.since) * self.rate, 0.0)
